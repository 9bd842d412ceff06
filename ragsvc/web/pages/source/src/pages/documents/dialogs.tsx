import { useEffect, useRef, useState } from "preact/hooks";
import {
  changeDocument,
  createCollection,
  deleteCollection,
  type CollectionInfo,
  type DocumentInfo,
  type MetadataValue,
} from "../../api/documents";
import { Button, IconButton } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Field } from "../../components/field";
import { errorText, toast, toastError } from "../../components/toast";
import { language, t, tn } from "../../texts";

interface PasswordDialogProps {
  /** The name of the file; the dialog is open while there is one. */
  name: string | null;
  wrong: boolean;
  onSubmit: (password: string) => Promise<void>;
  onClose: () => void;
}

/** Asks for the password of a protected file. It stays in the field and is emptied. */
export function PasswordDialog({ name, wrong, onSubmit, onClose }: PasswordDialogProps) {
  const input = useRef<HTMLInputElement>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  useEffect(() => setError(name && wrong ? t("documents.password.wrong") : ""), [name, wrong]);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const password = input.current?.value ?? "";
    if (!password) {
      setError(t("documents.password.empty"));
      return;
    }
    setBusy(true);
    try {
      await onSubmit(password);
      onClose();
    } catch (reason) {
      setError(errorText(reason));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={t("documents.password.title")} open={name !== null} onClose={onClose}>
      <form class="stack" onSubmit={submit} noValidate>
        <p>{t("documents.password.text", { name: name ?? "" })}</p>
        <Field label={t("documents.password")} error={error || undefined}>
          <input ref={input} type="password" autoComplete="off" spellcheck={false} autoFocus />
        </Field>
        <div class="dialog-buttons">
          <Button onClick={onClose}>{t("shell.cancel")}</Button>
          <Button kind="primary" type="submit" busy={busy}>
            {t("documents.password.submit")}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

type Kind = "text" | "number" | "yes_no";

interface MetadataRow {
  id: number;
  key: string;
  kind: Kind;
  value: string;
}

let nextRow = 1;

function rowsOf(metadata: Record<string, MetadataValue>): MetadataRow[] {
  return Object.entries(metadata).map(([key, value]) => ({
    id: nextRow++,
    key,
    kind: typeof value === "number" ? "number" : typeof value === "boolean" ? "yes_no" : "text",
    value: String(value),
  }));
}

/** The values of the rows; throws an `Error` with a sentence for the reader. */
function valuesOf(rows: readonly MetadataRow[]): Record<string, MetadataValue> {
  const values: Record<string, MetadataValue> = {};
  for (const row of rows) {
    const key = row.key.trim();
    if (!key) continue;
    if (row.kind === "yes_no") values[key] = row.value === "true";
    else if (row.kind === "text") values[key] = row.value;
    else {
      const number = numberOf(row.value.trim());
      if (!row.value.trim() || !Number.isFinite(number)) throw new Error(t("documents.edit.number_wrong", { value: row.value }));
      values[key] = number;
    }
  }
  return values;
}

/** A number with a decimal point or comma; `1,000` is a thousand in English. */
function numberOf(text: string): number {
  const isGrouped = language.value === "en" && /^-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$/.test(text);
  return Number(isGrouped ? text.replaceAll(",", "") : text.replace(",", "."));
}

interface EditDialogProps {
  /** The documents to change; the dialog is open while there are some. */
  documents: readonly DocumentInfo[];
  onSaved: (documents: DocumentInfo[]) => void;
  onClose: () => void;
}

/** Changes the name and the properties of one document, or sets properties of several. */
export function EditDialog({ documents, onSaved, onClose }: EditDialogProps) {
  const only = documents.length === 1 ? documents[0] : undefined;
  const [name, setName] = useState("");
  const [rows, setRows] = useState<MetadataRow[]>([]);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const identity = documents.map((document) => document.id).join(" ");
  useEffect(() => {
    setName(only?.filename ?? "");
    setRows(only ? rowsOf(only.metadata) : [{ id: nextRow++, key: "", kind: "text", value: "" }]);
    setError("");
  }, [identity]);

  const change = (id: number, values: Partial<MetadataRow>): void =>
    setRows((current) => current.map((row) => (row.id === id ? { ...row, ...values } : row)));

  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError("");
    try {
      if (only && !name.trim()) throw new Error(t("documents.edit.name_empty"));
      const values = valuesOf(rows);
      const saved: DocumentInfo[] = [];
      for (const document of documents) {
        const metadata: Record<string, MetadataValue | null> = { ...values };
        if (only) for (const key of Object.keys(document.metadata)) if (!(key in values)) metadata[key] = null;
        const renamed = only && name.trim() !== document.filename ? { filename: name.trim() } : {};
        saved.push(await changeDocument(document.id, { ...renamed, metadata }));
      }
      onSaved(saved);
      toast(t("documents.edit.saved"), { kind: "success" });
      onClose();
    } catch (reason) {
      setError(errorText(reason));
    } finally {
      setBusy(false);
    }
  };

  const title = only ? t("documents.edit") : tn(documents.length, "documents.edit.selected_one", "documents.edit.selected");
  return (
    <Dialog title={title} open={documents.length > 0} onClose={onClose} wide>
      <form class="stack" onSubmit={save} noValidate>
        {only ? (
          <Field label={t("documents.edit.name")}>
            <input type="text" value={name} maxLength={255} onInput={(event) => setName(event.currentTarget.value)} />
          </Field>
        ) : null}
        <fieldset class="metadata">
          <legend class="field-label">{t("documents.edit.metadata")}</legend>
          <p class="field-hint">{t("documents.edit.hint")}</p>
          {rows.map((row) => (
            <div class="metadata-row" key={row.id}>
              <Field label={t("documents.edit.key")}>
                <input type="text" value={row.key} onInput={(event) => change(row.id, { key: event.currentTarget.value })} />
              </Field>
              <Field label={t("documents.edit.kind")}>
                <select
                  value={row.kind}
                  onChange={(event) => {
                    const kind = event.currentTarget.value as Kind;
                    change(row.id, { kind, value: kind === "yes_no" ? "true" : row.value });
                  }}
                >
                  <option value="text">{t("documents.edit.kind.text")}</option>
                  <option value="number">{t("documents.edit.kind.number")}</option>
                  <option value="yes_no">{t("documents.edit.kind.yes_no")}</option>
                </select>
              </Field>
              <Field label={t("documents.edit.value")}>
                {row.kind === "yes_no" ? (
                  <select value={row.value} onChange={(event) => change(row.id, { value: event.currentTarget.value })}>
                    <option value="true">{t("documents.edit.yes")}</option>
                    <option value="false">{t("documents.edit.no")}</option>
                  </select>
                ) : (
                  <input
                    type="text"
                    inputMode={row.kind === "number" ? "decimal" : "text"}
                    value={row.value}
                    onInput={(event) => change(row.id, { value: event.currentTarget.value })}
                  />
                )}
              </Field>
              <IconButton
                icon="trash"
                label={t("documents.edit.remove", { name: row.key })}
                onClick={() => setRows(rows.filter((other) => other.id !== row.id))}
              />
            </div>
          ))}
          <div>
            <Button
              icon="plus"
              small
              onClick={() => setRows([...rows, { id: nextRow++, key: "", kind: "text", value: "" }])}
            >
              {t("documents.edit.add")}
            </Button>
          </div>
        </fieldset>
        {error ? (
          <p class="field-error" role="alert">
            {error}
          </p>
        ) : null}
        <div class="dialog-buttons">
          <Button onClick={onClose}>{t("shell.cancel")}</Button>
          <Button kind="primary" type="submit" busy={busy}>
            {t("documents.edit.save")}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function focus(element: HTMLElement | null): void {
  element?.focus();
}

interface CollectionsDialogProps {
  open: boolean;
  collections: readonly CollectionInfo[];
  mayWrite: boolean;
  onChanged: (created: string | null) => void;
  onClose: () => void;
}

/** Lists, creates and deletes collections. */
export function CollectionsDialog({ open, collections, mayWrite, onChanged, onClose }: CollectionsDialogProps) {
  const [name, setName] = useState("");
  const [error, setError] = useState("");
  const [doomedName, setDoomed] = useState("");
  const [busy, setBusy] = useState(false);

  const doomed = collections.find((collection) => collection.name === doomedName);

  const create = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (!name.trim()) {
      setError(t("documents.collections.empty_name"));
      return;
    }
    setBusy(true);
    setError("");
    try {
      const made = await createCollection(name.trim());
      setName("");
      onChanged(made.name);
    } catch (reason) {
      setError(errorText(reason));
    } finally {
      setBusy(false);
    }
  };

  const remove = async (): Promise<void> => {
    if (!doomed) return;
    setBusy(true);
    try {
      await deleteCollection(doomed.name);
      setDoomed("");
      onChanged(null);
    } catch (reason) {
      toastError(reason);
    } finally {
      setBusy(false);
    }
  };

  return (
    <Dialog title={t("documents.collections")} open={open} onClose={onClose}>
      <div class="stack">
        <p class="soft">{t("documents.collections.hint")}</p>
        <ul class="collections">
          {collections.map((collection) => (
            <li key={collection.name}>
              <span class="collections-name">{collection.name}</span>
              <span class="soft small">
                {tn(collection.documents, "documents.collections.count_one", "documents.collections.count")}
              </span>
              {mayWrite ? (
                <IconButton
                  icon="trash"
                  small
                  label={t("documents.collections.delete_named", { name: collection.name })}
                  onClick={() => setDoomed(collection.name)}
                />
              ) : null}
            </li>
          ))}
        </ul>
        {doomed ? (
          <div class="stack card" role="alertdialog" aria-label={t("documents.collections.confirm_delete")} tabIndex={-1} ref={focus}>
            <p>{tn(doomed.documents, "documents.collections.confirm_one", "documents.collections.confirm", { name: doomed.name })}</p>
            <div class="row">
              <Button kind="danger" busy={busy} onClick={() => void remove()}>
                {t("documents.collections.confirm_delete")}
              </Button>
              <Button onClick={() => setDoomed("")}>{t("shell.cancel")}</Button>
            </div>
          </div>
        ) : null}
        {mayWrite ? (
          <form class="collections-new" onSubmit={create} noValidate>
            <Field label={t("documents.collections.new")} error={error || undefined}>
              <input type="text" value={name} maxLength={128} onInput={(event) => setName(event.currentTarget.value)} />
            </Field>
            <Button type="submit" icon="plus" busy={busy && !doomed}>
              {t("documents.collections.create")}
            </Button>
          </form>
        ) : null}
      </div>
    </Dialog>
  );
}
