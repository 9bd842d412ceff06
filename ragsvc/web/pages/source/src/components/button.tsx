import type { ButtonHTMLAttributes, ComponentChildren } from "preact";
import "./button.css";
import { Icon, type IconName } from "./icons";
import { Spinner } from "./spinner";

type Kind = "plain" | "primary" | "danger" | "quiet";

interface ButtonProps extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "icon"> {
  kind?: Kind;
  icon?: IconName;
  /** Shows that the action runs, and refuses further clicks. */
  busy?: boolean;
  small?: boolean;
  disabled?: boolean;
  type?: "button" | "submit";
  children?: ComponentChildren;
}

export function Button({ kind = "plain", icon, busy, small, disabled, type = "button", children, class: extra, ...rest }: ButtonProps) {
  const name = ["button", `button-${kind}`, small && "button-small", extra].filter(Boolean).join(" ");
  return (
    <button {...rest} type={type} class={name} disabled={disabled || busy} aria-busy={busy || undefined}>
      {busy ? <Spinner small /> : icon ? <Icon name={icon} size={small ? 16 : 18} /> : null}
      {children}
    </button>
  );
}

interface IconButtonProps extends Omit<ButtonProps, "children" | "icon"> {
  icon: IconName;
  /** Read by screen readers and shown on hover. */
  label: string;
}

/** A button that shows only a picture. */
export function IconButton({ icon, label, kind = "quiet", busy, small, class: extra, ...rest }: IconButtonProps) {
  const name = ["button-icon", extra].filter(Boolean).join(" ");
  return (
    <Button {...rest} kind={kind} busy={busy ?? false} small={small ?? false} class={name} aria-label={label} title={label}>
      {busy ? null : <Icon name={icon} size={small ? 16 : 20} />}
    </Button>
  );
}
