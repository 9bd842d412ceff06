import { useEffect, useRef, useState } from "preact/hooks";
import { listChanges, type Change } from "../../api/keys";
import { session } from "../../api/session";
import { Button } from "../../components/button";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { errorText, toastError } from "../../components/toast";
import { formatTime, t, tryText } from "../../texts";

interface ChangesProps {
  tenant: string | null;
  keyId: string | null;
  names: ReadonlyMap<string, string>;
  onShowAll: () => void;
}

/** Who changed which key, newest first. */
export function Changes({ tenant, keyId, names, onShowAll }: ChangesProps) {
  const [rows, setRows] = useState<Change[] | null>(null);
  const [more, setMore] = useState(false);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    let current = true;
    setRows(null);
    setError(null);
    listChanges({ tenant, key_id: keyId, before: null }).then(
      (page) => {
        if (!current) return;
        setRows(page.data);
        setMore(page.has_more);
      },
      (reason: unknown) => current && setError(reason),
    );
    return () => {
      current = false;
    };
  }, [tenant, keyId]);
  const shown = useRef("");
  shown.current = `${tenant} ${keyId}`;
  const older = async (): Promise<void> => {
    try {
      const page = await listChanges({ tenant, key_id: keyId, before: rows?.at(-1)?.id ?? null });
      if (shown.current !== `${tenant} ${keyId}`) return;
      setRows([...(rows ?? []), ...page.data]);
      setMore(page.has_more);
    } catch (reason) {
      toastError(reason);
    }
  };
  const nameOf = (id: string): string => names.get(id) ?? id;
  const actorOf = (id: string): string => {
    if (id === session.value?.key.id) return t("keys.changes.me");
    return id === "local" || id === "key_local" ? t("keys.changes.local") : nameOf(id);
  };
  const columns: Column<Change>[] = [
    { id: "at", title: t("keys.changes.time"), cell: (row) => formatTime(row.at) },
    { id: "key", title: t("keys.changes.key"), cell: (row) => nameOf(row.key_id) || "–" },
    { id: "action", title: t("keys.changes.what"), cell: (row) => tryText(`keys.action.${row.action}`, row.action) },
    { id: "actor", title: t("keys.changes.who"), cell: (row) => actorOf(row.actor) },
    { id: "details", title: t("keys.changes.details"), wideOnly: true, cell: (row) => <span class="keys-mono">{details(row)}</span> },
  ];
  if (error) return <Notice kind="error">{errorText(error)}</Notice>;
  if (!rows) return <Spinner label={t("shell.loading")} />;
  return (
    <>
      {keyId ? (
        <div class="row keys-section">
          <span>{t("keys.changes.of_key", { key: nameOf(keyId) })}</span>
          <Button small onClick={onShowAll}>
            {t("keys.changes.all")}
          </Button>
        </div>
      ) : null}
      <Table caption={t("keys.changes.list")} columns={columns} rows={rows} rowKey={(row) => row.id} empty={t("keys.changes.none")} />
      {more ? (
        <p>
          <Button onClick={older}>{t("keys.changes.more")}</Button>
        </p>
      ) : null}
    </>
  );
}

/** The changed fields; without those of a new key that say nothing. */
function details({ changes }: Change): string {
  const shown: string[] = [];
  const add = (fields: Record<string, unknown>): void => {
    for (const [name, value] of Object.entries(fields)) {
      if (name === "limits" && value && typeof value === "object") add(value as Record<string, unknown>);
      else if (value !== null && !(Array.isArray(value) && value.length === 0)) shown.push(`${name}: ${Array.isArray(value) ? value.join(", ") : String(value)}`);
      else if (Object.keys(changes).length < 4) shown.push(`${name}: –`);
    }
  };
  add(changes);
  return shown.join("; ");
}
