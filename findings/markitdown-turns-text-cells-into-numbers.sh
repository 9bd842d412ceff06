#!/usr/bin/env bash
# markitdown 0.1.9 (reads XLSX with pandas 3.1.1 and openpyxl 3.1.5).
#
# Expected: a cell that holds the text "007" is written as 007, a number 7 with the format 000 as 007, 0.0725 with the
#   format 0.00% as 7.25%, and a sheet that the author hid is left out, as a spreadsheet program shows the workbook.
# Behaviour: both cells are written as 7, the rate as 0.0725, and the hidden sheet is part of the result. Article
#   numbers, postcodes and account numbers become other numbers.
# Output seen: | 7 | 7 | 0.0725 | … ## Secret | hidden sheet |
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "markitdown[xlsx]==0.1.9" pandas==3.1.1 openpyxl==3.1.5
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import openpyxl
from markitdown import MarkItDown

book = openpyxl.Workbook()
sheet = book.active
sheet.append(["text", "number", "rate"])
sheet.append(["007", 7, 0.0725])
sheet["B2"].number_format, sheet["C2"].number_format = "000", "0.00%"
hidden = book.create_sheet("Secret")
hidden["A1"] = "hidden sheet"
hidden.sheet_state = "hidden"
book.save("book.xlsx")
text = MarkItDown().convert("book.xlsx").text_content
print(text)
raise SystemExit(not ("| 7 | 7 | 0.0725 |" in text and "hidden sheet" in text))
PYTHON
