import { useEffect, useState } from "preact/hooks";
import { deleteProviderKey, listProviderKeys, setProviderKey, type ProviderKey } from "../../api/keys";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { errorText, toast, toastError } from "../../components/toast";
import { formatTime, t } from "../../texts";

/** A tenant's own keys for providers of models. */
export function ProviderKeys({ tenant }: { tenant: string | null }) {
  const [rows, setRows] = useState<ProviderKey[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [setting, setSetting] = useState<ProviderKey | null>(null);
  const [removing, setRemoving] = useState<ProviderKey | null>(null);
  const [version, setVersion] = useState(0);
  useEffect(() => {
    let current = true;
    setError(null);
    setRows((shown) => (shown?.every((row) => row.tenant === tenant) ? shown : null));
    if (tenant === null) return undefined;
    listProviderKeys(tenant).then(
      (found) => current && setRows(found),
      (reason: unknown) => current && setError(reason),
    );
    return () => {
      current = false;
    };
  }, [tenant, version]);
  if (tenant === null) return <Notice>{t("keys.providers.choose")}</Notice>;
  if (error) return <Notice kind="error">{errorText(error)}</Notice>;
  if (!rows) return <Spinner label={t("shell.loading")} />;
  const columns: Column<ProviderKey>[] = [
    { id: "provider", title: t("keys.providers.name"), cell: (row) => row.provider },
    { id: "key", title: t("keys.providers.key"), cell: stateOf },
    {
      id: "actions",
      title: t("keys.actions"),
      cell: (row) => (
        <div class="row">
          <Button small onClick={() => setSetting(row)}>
            {t(hasKey(row) ? "keys.providers.replace" : "keys.providers.set")}
          </Button>
          {hasKey(row) ? (
            <Button small kind="danger" onClick={() => setRemoving(row)}>
              {t("keys.providers.remove")}
            </Button>
          ) : null}
        </div>
      ),
    },
  ];
  const done = (): void => {
    setSetting(null);
    setRemoving(null);
    setVersion(version + 1);
  };
  return (
    <>
      <p>{t("keys.providers.text")}</p>
      <Table caption={t("keys.providers.list")} columns={columns} rows={rows} rowKey={(row) => row.provider} empty={t("keys.providers.none")} />
      {setting ? <SetDialog row={setting} onClose={() => setSetting(null)} onDone={done} /> : null}
      {removing ? <RemoveDialog row={removing} onClose={() => setRemoving(null)} onDone={done} /> : null}
    </>
  );
}

function hasKey(row: ProviderKey): boolean {
  return row.updated_at !== null || !row.usable;
}

function stateOf(row: ProviderKey): string {
  if (!row.usable) return t("keys.providers.unusable");
  return row.updated_at === null ? t("keys.providers.operator") : t("keys.providers.stored", { time: formatTime(row.updated_at) });
}

interface DialogProps {
  row: ProviderKey;
  onClose: () => void;
  onDone: () => void;
}

function SetDialog({ row, onClose, onDone }: DialogProps) {
  const [value, setValue] = useState("");
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (!value.trim()) {
      setError(t("keys.providers.set.missing"));
      return;
    }
    setBusy(true);
    try {
      await setProviderKey(row.provider, row.tenant, value.trim());
      toast(t("keys.providers.saved"), { kind: "success" });
      onDone();
    } catch (reason) {
      setError(errorText(reason));
      setBusy(false);
    }
  };
  return (
    <Dialog
      open
      title={t("keys.providers.set.title", { provider: row.provider })}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("shell.cancel")}</Button>
          <Button kind="primary" type="submit" form="provider-key-form" busy={busy}>
            {t("keys.providers.set")}
          </Button>
        </>
      }
    >
      <form id="provider-key-form" onSubmit={submit} noValidate>
        <Field label={t("keys.providers.set.label")} error={error || undefined}>
          <input type="password" autocomplete="off" value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        </Field>
      </form>
    </Dialog>
  );
}

function RemoveDialog({ row, onClose, onDone }: DialogProps) {
  const [busy, setBusy] = useState(false);
  const run = async (): Promise<void> => {
    setBusy(true);
    try {
      await deleteProviderKey(row.provider, row.tenant);
      toast(t("keys.providers.removed"), { kind: "success" });
      onDone();
    } catch (reason) {
      toastError(reason);
      setBusy(false);
    }
  };
  return (
    <Dialog
      open
      title={t("keys.providers.remove.title", { provider: row.provider })}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("shell.cancel")}</Button>
          <Button kind="danger" busy={busy} onClick={run}>
            {t("keys.providers.remove")}
          </Button>
        </>
      }
    >
      <p>{t("keys.providers.remove.text")}</p>
    </Dialog>
  );
}
