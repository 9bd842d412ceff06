import type { ComponentChildren, JSX } from "preact";
import { t } from "../../texts";
import { pageName, type Marker, type Source } from "./turns";

// A marker in the text becomes a private character, the number of the marker, and another private character.
const OPEN = "\uE000";
const CLOSE = "\uE001";
const CUT_MARKER = /\[[\d,\s]*$/;

interface AnswerTextProps {
  text: string;
  markers: readonly Marker[];
  /** The text is still written: its end may be the first half of a marker. */
  writing: boolean;
  /** The text is quoted as it is, and no Markdown. */
  verbatim: boolean;
  shown: Source | null;
  onOpen: (source: Source) => void;
}

/** An answer with its markers as chips. The Markdown that models write is shown as such, and never as HTML. */
export function AnswerText({ text, markers, writing, verbatim, shown, onOpen }: AnswerTextProps) {
  const chip = (index: number): ComponentChildren =>
    markers[index]?.sources.map((source) => (
      <Chip key={source.number} source={source} pressed={isShown(shown, source)} onOpen={onOpen} />
    ));
  const marked = withPlaces(text, markers);
  const shownText = writing ? marked.replace(CUT_MARKER, "") : marked;
  if (verbatim) return <div class="answer-text answer-verbatim">{inline(shownText, chip, false)}</div>;
  return <div class="answer-text">{blocks(shownText, chip)}</div>;
}

export function isShown(shown: Source | null, source: Source): boolean {
  return shown?.chunkId === source.chunkId && shown?.quote === source.quote && shown?.documentId === source.documentId;
}

function Chip({ source, pressed, onOpen }: { source: Source; pressed: boolean; onOpen: (source: Source) => void }) {
  const label = t("ask.chip", { number: source.number, file: source.filename, page: pageName(source) });
  return (
    <button type="button" class="chip" aria-label={label} title={label} aria-pressed={pressed} onClick={() => onOpen(source)}>
      {source.number}
    </button>
  );
}

function withPlaces(text: string, markers: readonly Marker[]): string {
  let result = "";
  let at = 0;
  markers.forEach((marker, index) => {
    result += plain(text.slice(at, marker.start)) + OPEN + String(index) + CLOSE;
    at = marker.end;
  });
  return result + plain(text.slice(at));
}

/** The text without the private characters, which a model could write. */
function plain(text: string): string {
  return text.replaceAll(OPEN, "").replaceAll(CLOSE, "");
}

type MakeChip = (index: number) => ComponentChildren;

const FENCE = /^\s*(```|~~~)/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,3}[.)])\s+(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** Lists and quotes are shown as such to this depth, and deeper ones as text. */
const MAX_DEPTH = 8;

function blocks(text: string, chip: MakeChip, depth = 0): JSX.Element[] {
  if (depth > MAX_DEPTH) return [<p>{inline(text, chip)}</p>];
  const lines = text.split("\n");
  const found: JSX.Element[] = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at] ?? "";
    const next = lines[at + 1] ?? "";
    const fence = FENCE.exec(line)?.[1];
    const heading = HEADING.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) {
      const end = lines.findIndex((other, index) => index > at && other.trim().startsWith(fence));
      const stop = end < 0 ? lines.length : end;
      found.push(<pre tabIndex={0}>{inline(lines.slice(at + 1, stop).join("\n"), chip, false)}</pre>);
      at = stop + 1;
    } else if (heading) {
      const level = heading[1]?.length ?? 1;
      const content = inline(heading[2] ?? "", chip);
      found.push(level <= 2 ? <h3>{content}</h3> : <h4>{content}</h4>);
      at += 1;
    } else if (RULE.test(line)) {
      found.push(<hr />);
      at += 1;
    } else if (line.includes("|") && next.includes("-") && TABLE_LINE.test(next)) {
      const stop = endOf(lines, at + 1, (other) => other.includes("|"));
      found.push(table(lines.slice(at, stop), chip));
      at = stop;
    } else if (ITEM.test(line)) {
      const stop = endOf(lines, at, (other) => ITEM.test(other) || /^\s{2,}\S/.test(other));
      found.push(list(lines.slice(at, stop), chip, depth));
      at = stop;
    } else if (line.startsWith(">")) {
      const stop = endOf(lines, at, (other) => other.startsWith(">"));
      const quoted = lines.slice(at, stop).map((other) => other.replace(/^>\s?/, ""));
      found.push(<blockquote>{blocks(quoted.join("\n"), chip, depth + 1)}</blockquote>);
      at = stop;
    } else {
      const stop = endOf(lines, at, (other) => other.trim() !== "" && !startsBlock(other));
      found.push(<p>{inline(lines.slice(at, stop).join("\n"), chip)}</p>);
      at = stop;
    }
  }
  return found;
}

function startsBlock(line: string): boolean {
  return FENCE.test(line) || HEADING.test(line) || ITEM.test(line) || line.startsWith(">");
}

/** The index of the first line from `from` on that does not belong, at least `from + 1`. */
function endOf(lines: readonly string[], from: number, belongs: (line: string) => boolean): number {
  let at = from + 1;
  while (at < lines.length && belongs(lines[at] ?? "")) at += 1;
  return Math.min(at, lines.length);
}

function list(lines: readonly string[], chip: MakeChip, depth: number): JSX.Element {
  const first = ITEM.exec(lines[0] ?? "");
  const indent = first?.[1]?.length ?? 0;
  const items: string[][] = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && (item[1]?.length ?? 0) <= indent) items.push([item[3] ?? ""]);
    else items.at(-1)?.push(line.slice(Math.min(indent + 2, line.length - line.trimStart().length)));
  }
  const content = items.map(([head = "", ...rest]) => (
    <li>
      {inline(head, chip)}
      {rest.length ? blocks(rest.join("\n"), chip, depth + 1) : null}
    </li>
  ));
  const start = Number.parseInt(first?.[2] ?? "", 10);
  return Number.isNaN(start) ? <ul>{content}</ul> : <ol start={start}>{content}</ol>;
}

function table(lines: readonly string[], chip: MakeChip): JSX.Element {
  const cells = (line: string): string[] => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const [head = "", , ...rows] = lines;
  return (
    <div class="answer-table" role="region" aria-label={t("ask.table")} tabIndex={0}>
      <table>
        <thead>
          <tr>{cells(head).map((cell) => <th scope="col">{inline(cell, chip)}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr>{cells(row).map((cell) => <td>{inline(cell, chip)}</td>)}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const SPANS = new RegExp(
  [
    `${OPEN}(\\d+)${CLOSE}`, // a marker
    "`([^`\\n]+)`",
    "\\*\\*([^*]+(?:\\*(?!\\*)[^*]+)*)\\*\\*",
    "(?<![\\w*])\\*([^*\\s](?:[^*\\n]*[^*\\s])?)\\*(?![\\w*])",
    "\\[([^\\]\\n]+)\\]\\((https?:[^\\s)]+)\\)",
  ].join("|"),
  "g",
);
const PLACES = new RegExp(`${OPEN}(\\d+)${CLOSE}`, "g");

function inline(text: string, chip: MakeChip, markdown = true): ComponentChildren[] {
  const found: ComponentChildren[] = [];
  let at = 0;
  for (const match of text.matchAll(markdown ? SPANS : PLACES)) {
    found.push(text.slice(at, match.index));
    at = match.index + match[0].length;
    const [, place, code, strong, emphasis, label, url] = match;
    if (place !== undefined) found.push(chip(Number(place)));
    else if (code !== undefined) found.push(<code>{inline(code, chip, false)}</code>);
    else if (strong !== undefined) found.push(<strong>{inline(strong, chip)}</strong>);
    else if (emphasis !== undefined) found.push(<em>{inline(emphasis, chip)}</em>);
    else if (label !== undefined && url !== undefined)
      found.push(
        <a href={url.replace(PLACES, "")} target="_blank" rel="noreferrer">
          {label.replace(PLACES, "")}
        </a>,
        ...[...`${label}${url}`.matchAll(PLACES)].map(([, index]) => chip(Number(index))),
      );
  }
  found.push(text.slice(at));
  return found;
}
