import { useState } from "preact/hooks";
import type { ApiDescription, Schema } from "../../api/openapi";
import { t } from "../../texts";
import { limitsOf, objectOf, typeText } from "./schemas";

/** The properties of an object; those that are objects themselves can be opened. */
export function SchemaView({ api, schema }: { api: ApiDescription; schema: Schema }) {
  const object = objectOf(api, schema);
  if (!object?.properties) return <p class="soft">{typeText(api, schema)}</p>;
  const required = new Set(object.required);
  return (
    <ul class="properties">
      {Object.entries(object.properties).map(([name, property]) => (
        <Property key={name} api={api} name={name} schema={property} required={required.has(name)} />
      ))}
    </ul>
  );
}

interface PropertyProps {
  api: ApiDescription;
  name: string;
  schema: Schema;
  required: boolean;
}

function Property({ api, name, schema, required }: PropertyProps) {
  const [open, setOpen] = useState(false);
  const inner = objectOf(api, schema);
  const resolved = api.resolve(schema);
  const notes = limitsOf(resolved);
  if (resolved.default !== undefined && resolved.default !== null) {
    notes.push(t("reference.default", { value: JSON.stringify(resolved.default) }));
  }
  return (
    <li>
      <code>{name}</code> <span class="soft small">{typeText(api, schema)}</span>
      {required ? <span class="required small"> {t("reference.required")}</span> : null}
      {notes.length ? <span class="soft small"> · {notes.join(" · ")}</span> : null}
      {resolved.description ? <div class="small">{plain(resolved.description)}</div> : null}
      {inner ? (
        <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary class="small">{t("reference.fields", { name })}</summary>
          {open ? <SchemaView api={api} schema={inner} /> : null}
        </details>
      ) : null}
    </li>
  );
}

/** A description without the marks of its source format. */
export function plain(text: string): string {
  return text.replaceAll("``", "`").replace(/\s*\n\s*(?=\S)/g, (space) => (space.includes("\n\n") ? "\n\n" : " "));
}
