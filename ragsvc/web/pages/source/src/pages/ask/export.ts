import { formatTime, t } from "../../texts";
import { citationsOf, numberedText, pageName, type Source, type Turn } from "./turns";

/** A source as a line of text: `[1] report.pdf, page 3: “…”`. */
function sourceLine(source: Source): string {
  const quote = source.quote.replace(/\s+/g, " ").trim();
  const place = `[${source.number}] ${source.filename}, ${t("ask.page", { page: pageName(source) })}`;
  return quote ? `${place}: “${quote}”` : place;
}

/** An answer with its sources, as text. */
export function answerWithSources(turn: Turn): string {
  const { sources } = citationsOf(turn);
  if (!sources.length) return turn.text;
  return `${numberedText(turn)}\n\n${t("ask.sources")}\n${sources.map(sourceLine).join("\n")}`;
}

/** A conversation as Markdown. */
export function asMarkdown(title: string, turns: readonly Turn[]): string {
  const parts = [`# ${title || t("ask.conversation")}`, t("ask.export.made", { time: formatTime(Date.now() / 1000) })];
  for (const turn of turns) {
    parts.push(`## ${turn.question.replace(/\s+/g, " ")}`, numberedText(turn));
    const { sources } = citationsOf(turn);
    if (sources.length) parts.push(`### ${t("ask.sources")}`, sources.map((each) => `- ${sourceLine(each)}`).join("\n"));
  }
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

/** Offers a text as a file. */
export function download(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A file name made of a title. */
export function fileName(title: string, ending: string): string {
  const words = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60);
  return `${words || "conversation"}.${ending}`;
}
