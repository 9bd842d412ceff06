import { cloneElement, type ComponentChildren, type VNode } from "preact";
import { useId } from "preact/hooks";
import "./field.css";

interface FieldProps {
  label: string;
  /** Hides the label from sight, not from screen readers. */
  hideLabel?: boolean;
  hint?: ComponentChildren;
  error?: string | undefined;
  /** An `input`, `select` or `textarea`; it gets the id and the descriptions. */
  children: VNode<Record<string, unknown>>;
}

/** A labelled control with an optional hint and error. */
export function Field({ label, hideLabel, hint, error, children }: FieldProps) {
  const id = useId();
  const described = [hint ? `${id}-hint` : "", error ? `${id}-error` : ""].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id} class={hideLabel ? "visually-hidden" : "field-label"}>
        {label}
      </label>
      {cloneElement(children, {
        id,
        "aria-describedby": described || undefined,
        "aria-invalid": error ? "true" : undefined,
      })}
      {hint ? (
        <div class="field-hint" id={`${id}-hint`}>
          {hint}
        </div>
      ) : null}
      {error ? (
        <div class="field-error" id={`${id}-error`} role="alert">
          {error}
        </div>
      ) : null}
    </div>
  );
}
