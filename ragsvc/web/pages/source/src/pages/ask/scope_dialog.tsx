import { useEffect, useState } from "preact/hooks";
import type { Comparison, Condition, DocumentEntry } from "../../api/ask";
import { Button, IconButton } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Field } from "../../components/field";
import { toastError } from "../../components/toast";
import { t } from "../../texts";
import { collections, scope, searchDocuments, type AskScope } from "./state";

const COMPARISONS: readonly Comparison[] = ["eq", "ne", "contains", "prefix", "gte", "lte", "gt", "lt"];
const PAUSE_MS = 250;

function change(part: Partial<AskScope>): void {
  scope.value = { ...scope.value, ...part };
}

/** Chooses collections, documents and conditions. Every choice counts at once. */
export function ScopeDialog({ open, onClose, onDone }: { open: boolean; onClose: () => void; onDone: () => void }) {
  const { conditions } = scope.value;
  const leave = (go: () => void) => (): void => {
    change({ conditions: conditions.filter((condition) => condition.key.trim() && condition.value.trim()) });
    go();
  };
  const actions = (
    <>
      <Button kind="quiet" onClick={() => change({ collections: [], documents: [], conditions: [] })}>
        {t("ask.scope.clear")}
      </Button>
      <Button kind="primary" onClick={leave(onDone)}>
        {t("ask.scope.done")}
      </Button>
    </>
  );
  return (
    <Dialog title={t("ask.scope")} open={open} onClose={leave(onClose)} actions={actions}>
      <div class="scope">
        <Collections />
        <Documents />
        <Conditions />
      </div>
    </Dialog>
  );
}

function Collections() {
  const known = collections.value ?? [];
  if (known.length < 2) return null;
  const chosen = scope.value.collections;
  const toggle = (name: string): void => {
    const next = chosen.includes(name) ? chosen.filter((other) => other !== name) : [...chosen, name];
    change({ collections: next, documents: [] });
  };
  return (
    <fieldset>
      <legend>{t("ask.scope.collections")}</legend>
      <p class="soft small">{t("ask.scope.collections.hint")}</p>
      <div class="scope-list">
        {known.map(({ name, documents }) => (
          <label key={name} class="scope-choice">
            <input type="checkbox" checked={chosen.includes(name)} onChange={() => toggle(name)} />
            <span>{t("ask.scope.collection", { name, count: documents })}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}

function Documents() {
  const [name, setName] = useState("");
  const [found, setFound] = useState<DocumentEntry[] | null>(null);
  const { collections: places, documents: chosen } = scope.value;
  const place = places.length === 1 ? (places[0] ?? null) : null;
  useEffect(() => {
    const pause = setTimeout(() => void searchDocuments(name.trim(), place).then(setFound, toastError), name ? PAUSE_MS : 0);
    return () => clearTimeout(pause);
  }, [name, place]);
  const isChosen = (id: string): boolean => chosen.some((document) => document.id === id);
  const toggle = ({ id, filename, collection }: DocumentEntry): void => {
    if (isChosen(id)) remove(id);
    else change({ collections: [collection], documents: [...(place === collection ? chosen : []), { id, filename }] });
  };
  const remove = (id: string): void => change({ documents: chosen.filter((document) => document.id !== id) });
  return (
    <fieldset>
      <legend>{t("ask.scope.documents")}</legend>
      <p class="soft small">{t("ask.scope.documents.hint")}</p>
      {chosen.length ? (
        <ul class="scope-chosen">
          {chosen.map(({ id, filename }) => (
            <li key={id}>
              <span>{filename}</span>
              <IconButton icon="close" small label={t("ask.scope.remove", { name: filename })} onClick={() => remove(id)} />
            </li>
          ))}
        </ul>
      ) : null}
      <Field label={t("ask.scope.find")}>
        <input type="search" value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </Field>
      <div class="scope-list" role="group" aria-label={t("ask.scope.found")}>
        {found?.length === 0 ? <p class="soft small">{t("ask.scope.none")}</p> : null}
        {(found ?? []).map((document) => (
          <label key={document.id} class="scope-choice">
            <input type="checkbox" checked={isChosen(document.id)} onChange={() => toggle(document)} />
            <span>{document.filename}</span>
            {(collections.value ?? []).length > 1 ? <span class="soft small">{document.collection}</span> : null}
          </label>
        ))}
      </div>
    </fieldset>
  );
}

function Conditions() {
  const { conditions } = scope.value;
  const set = (index: number, part: Partial<Condition>): void =>
    change({ conditions: conditions.map((each, at) => (at === index ? { ...each, ...part } : each)) });
  return (
    <fieldset>
      <legend>{t("ask.scope.conditions")}</legend>
      {conditions.map((condition, index) => (
        <div class="scope-condition" key={index}>
          <Field label={t("ask.scope.key")} hideLabel>
            <input
              value={condition.key}
              placeholder={t("ask.scope.key")}
              onInput={(event: InputEvent) => set(index, { key: (event.currentTarget as HTMLInputElement).value })}
            />
          </Field>
          <Field label={t("ask.scope.comparison")} hideLabel>
            <select
              value={condition.type}
              onChange={(event: Event) => set(index, { type: (event.currentTarget as HTMLSelectElement).value as Comparison })}
            >
              {COMPARISONS.map((type) => (
                <option key={type} value={type}>
                  {t(`ask.scope.${type}`)}
                </option>
              ))}
            </select>
          </Field>
          <Field label={t("ask.scope.value")} hideLabel>
            <input
              value={condition.value}
              placeholder={t("ask.scope.value")}
              onInput={(event: InputEvent) => set(index, { value: (event.currentTarget as HTMLInputElement).value })}
            />
          </Field>
          <IconButton
            icon="trash"
            label={t("ask.scope.condition.remove")}
            onClick={() => change({ conditions: conditions.filter((_, at) => at !== index) })}
          />
        </div>
      ))}
      <div>
        <Button small icon="plus" onClick={() => change({ conditions: [...conditions, { key: "", type: "eq", value: "" }] })}>
          {t("ask.scope.condition.add")}
        </Button>
      </div>
    </fieldset>
  );
}
