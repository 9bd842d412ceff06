import { Field } from "../../components/field";
import { t, type TextKey } from "../../texts";

export type Parsed = { value: Record<string, unknown>; error: "" } | { value: null; error: string };

/** Reads a text as a JSON object; an empty text is an empty object. */
export function parseObject(text: string): Parsed {
  if (!text.trim()) return { value: {}, error: "" };
  try {
    const value: unknown = JSON.parse(text);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      return { value: value as Record<string, unknown>, error: "" };
    }
    return { value: null, error: t("playground.not_an_object") };
  } catch (error) {
    return { value: null, error: error instanceof Error ? error.message : String(error) };
  }
}

/** Reads a text as a JSON array; an empty text is none. */
export function parseList(text: string): { value: unknown[] | null; error: string } {
  if (!text.trim()) return { value: null, error: "" };
  try {
    const value: unknown = JSON.parse(text);
    if (Array.isArray(value)) return { value, error: "" };
    return { value: null, error: t("playground.not_a_list") };
  } catch (error) {
    return { value: null, error: error instanceof Error ? error.message : String(error) };
  }
}

export interface NumberParameter {
  name: string;
  label: TextKey;
  min?: number;
  max?: number;
  step: number;
}

interface NumbersProps {
  parameters: readonly NumberParameter[];
  values: Record<string, string>;
  onChange: (name: string, value: string) => void;
}

/** Numbers of a request; an empty field is not sent. */
export function Numbers({ parameters, values, onChange }: NumbersProps) {
  return (
    <div class="parameter-grid">
      {parameters.map(({ name, label, min, max, step }) => (
        <Field key={name} label={t(label)}>
          <input
            type="number"
            value={values[name] ?? ""}
            min={min}
            max={max}
            step={step}
            placeholder={t("playground.default")}
            onInput={(event) => onChange(name, event.currentTarget.value)}
          />
        </Field>
      ))}
    </div>
  );
}

/** The numbers that are filled in. */
export function numbersOf(parameters: readonly NumberParameter[], values: Record<string, string>): Record<string, number> {
  const filled: Record<string, number> = {};
  for (const { name } of parameters) {
    const text = values[name] ?? "";
    if (text !== "" && Number.isFinite(Number(text))) filled[name] = Number(text);
  }
  return filled;
}

/** Any further fields of the body, as a JSON object. */
export function ExtraFields({ text, error, onChange }: { text: string; error: string; onChange: (text: string) => void }) {
  return (
    <Field label={t("playground.extra")} hint={t("playground.extra.hint")} error={error || undefined}>
      <textarea
        class="code-input"
        rows={3}
        spellcheck={false}
        value={text}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
    </Field>
  );
}
