import type { ComponentChildren } from "preact";
import { Icon } from "./icons";
import "./notice.css";

const symbols = { info: "info", success: "check", warning: "warning", error: "error" } as const;

/** A message that stays on the page. */
export function Notice({ kind = "info", children }: { kind?: keyof typeof symbols; children: ComponentChildren }) {
  return (
    <div class={`notice notice-${kind}`} role={kind === "error" ? "alert" : undefined}>
      <Icon name={symbols[kind]} />
      <div class="notice-text">{children}</div>
    </div>
  );
}
