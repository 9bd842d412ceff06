#!/usr/bin/env bash
# python-docx 1.2.0, Paragraph.text.
#
# Expected: the text of a paragraph as Word shows it: with tracked insertions, the results of fields and the values of
#   content controls. The documentation calls it "the textual content of this paragraph" and mentions no exceptions.
# Behaviour: text in w:ins, w:fldSimple and w:sdt is missing, so that "The fee is 12 EUR" reads "The fee is  EUR", while
#   hidden text (w:vanish) is part of the result.
# Output seen: ['The fee is  EUR', 'Contract ', '', 'hidden words']
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet python-docx==1.2.0
"$folder/venv/bin/python" - <<'PYTHON'
import docx
from docx.oxml import parse_xml

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
document = docx.Document()


def add(content: str) -> None:
    body = document.element.body
    body.insert(len(body) - 1, parse_xml(f'<w:p xmlns:w="{WORD}">{content}</w:p>'))


def run(text: str, properties: str = "") -> str:
    return f'<w:r>{properties}<w:t xml:space="preserve">{text}</w:t></w:r>'


add(f'{run("The fee is ")}<w:ins w:id="1" w:author="A">{run("12")}</w:ins>{run(" EUR")}')
add(f'{run("Contract ")}<w:fldSimple w:instr="DOCPROPERTY No">{run("K-007")}</w:fldSimple>')
add(f"<w:sdt><w:sdtContent>{run('value of a content control')}</w:sdtContent></w:sdt>")
add(run("hidden words", "<w:rPr><w:vanish/></w:rPr>"))
seen = [paragraph.text for paragraph in document.paragraphs]
print(seen)
raise SystemExit(seen != ["The fee is  EUR", "Contract ", "", "hidden words"])
PYTHON
