import { useRef, useState } from "preact/hooks";
import { t } from "../texts";
import { Button } from "./button";
import "./copy_field.css";
import { copyText } from "./copy_text";
import { toastError } from "./toast";

/** A text that can only be read, with a button that copies it. */
export function CopyField({ label, value, focus }: { label: string; value: string; focus?: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  const [copied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    try {
      await copyText(value);
      setCopied(true);
    } catch (error) {
      toastError(error);
      input.current?.select();
    }
  };
  return (
    <div class="copy-field">
      <input ref={input} type="text" readOnly value={value} aria-label={label} onFocus={(event) => event.currentTarget.select()} />
      <Button autoFocus={focus ?? false} icon={copied ? "check" : "copy"} onClick={copy}>
        {t(copied ? "shell.copied" : "shell.copy")}
      </Button>
      <span class="visually-hidden" role="status">
        {copied ? t("shell.copied") : ""}
      </span>
    </div>
  );
}
