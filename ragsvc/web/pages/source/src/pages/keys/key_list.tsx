import { useEffect, useRef, useState } from "preact/hooks";
import { listKeys, usage, type IssuedKey, type Key, type OwnKey, type TenantView, type UsageRow } from "../../api/keys";
import { Button, IconButton } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { errorText, toast, toastError } from "../../components/toast";
import { formatNumber, formatTime, t } from "../../texts";
import { DeleteDialog, DetailsDialog, RevokeDialog, RotateDialog, type KeyAction } from "./key_dialogs";
import { KeyForm } from "./key_form";
import { formatMoney, limitsInWords } from "./limits";
import { SecretDialog } from "./secret_dialog";
import { daysAgo } from "./days";

interface KeyListProps {
  tenant: string | null;
  tenants: readonly TenantView[];
  own: OwnKey | null;
  onShowUse: (key: Key) => void;
  onShowChanges: (key: Key) => void;
}

type Open = { what: "details" | "edit" | "rotate" | "revoke" | "delete"; key: Key } | { what: "create" } | null;

export function KeyList({ tenant, tenants, own, onShowUse, onShowChanges }: KeyListProps) {
  const [keys, setKeys] = useState<Key[] | null>(null);
  const [last, setLast] = useState<string | null>(null);
  const [used, setUsed] = useState<Map<string, UsageRow>>(new Map());
  const [error, setError] = useState<unknown>(null);
  const [find, setFind] = useState("");
  const [ended, setEnded] = useState(false);
  const [open, setOpen] = useState<Open>(null);
  const [issued, setIssued] = useState<IssuedKey | null>(null);
  const [version, setVersion] = useState(0);
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    let current = true;
    setError(null);
    listKeys(tenant, null).then(
      (page) => {
        if (!current) return;
        setKeys(page.data);
        setLast(page.has_more ? page.last_id : null);
      },
      (reason: unknown) => current && setError(reason),
    );
    usage("all", { since: daysAgo(29), tenant, group_by: "key_id" }).then(
      (answer) => current && setUsed(new Map(answer.data.map((row) => [row.key_id ?? "", row]))),
      () => undefined, // the list is useful without it
    );
    return () => {
      current = false;
    };
  }, [tenant, version]);

  const shownTenant = useRef(tenant);
  shownTenant.current = tenant;
  const more = async (): Promise<void> => {
    setBusy(true);
    try {
      const page = await listKeys(tenant, last);
      if (shownTenant.current !== tenant) return;
      setKeys((before) => [...(before ?? []), ...page.data]);
      setLast(page.has_more ? page.last_id : null);
    } catch (reason) {
      toastError(reason);
    } finally {
      setBusy(false);
    }
  };
  const changed = (key: Key, next: Open): void => {
    setKeys((keys ?? []).map((other) => (other.id === key.id ? { ...other, ...key } : other)));
    setOpen(next);
  };
  const act = (action: KeyAction, key: Key): void => {
    if (action === "use") onShowUse(key);
    else if (action === "changes") onShowChanges(key);
    else setOpen({ what: action, key });
  };
  if (error) return <Notice kind="error">{errorText(error)}</Notice>;
  if (!keys) return <Spinner label={t("shell.loading")} />;

  const wanted = find.trim().toLowerCase();
  const shown = keys.filter(
    (key) =>
      (ended || key.state === "active" || key.state === "inactive") &&
      (!wanted || [key.label, key.id, key.tenant].some((text) => text.toLowerCase().includes(wanted))),
  );
  const close = (): void => setOpen(null);
  return (
    <>
      <div class="keys-bar">
        <Field label={t("keys.find")}>
          <input type="search" value={find} onInput={(event) => setFind(event.currentTarget.value)} />
        </Field>
        <label class="keys-check">
          <input type="checkbox" checked={ended} onChange={(event) => setEnded(event.currentTarget.checked)} />
          {t("keys.show_ended")}
        </label>
        <Button kind="primary" icon="plus" onClick={() => setOpen({ what: "create" })}>
          {t("keys.create")}
        </Button>
      </div>
      <Table
        caption={t("keys.list")}
        columns={columnsOf(used, tenant === null && tenants.length > 1, (key) => setOpen({ what: "details", key }))}
        rows={shown}
        rowKey={(key) => key.id}
        empty={t(last ? "keys.none.yet" : "keys.none")}
      />
      {last ? (
        <p>
          <Button busy={busy} onClick={more}>
            {t("keys.more")}
          </Button>
        </p>
      ) : null}
      {open?.what === "create" || open?.what === "edit" ? (
        <KeyForm
          existing={open.what === "edit" ? open.key : null}
          own={own}
          tenants={tenants}
          tenant={tenant}
          onClose={close}
          onCreated={(made) => {
            close();
            setIssued(made);
            setVersion(version + 1);
          }}
          onChanged={(key) => {
            changed(key, { what: "details", key });
            toast(t("keys.saved"), { kind: "success" });
          }}
        />
      ) : null}
      {open?.what === "details" ? (
        <DetailsDialog
          subject={open.key}
          onClose={close}
          onAction={(action) => act(action, open.key)}
          onChanged={(key) => changed(key, { what: "details", key })}
        />
      ) : null}
      {open?.what === "rotate" ? (
        <RotateDialog
          subject={open.key}
          onClose={close}
          onRotated={(made) => {
            const { key: _, ...key } = made;
            changed(key, null);
            setIssued(made);
          }}
        />
      ) : null}
      {open?.what === "revoke" ? <RevokeDialog subject={open.key} onClose={close} onChanged={(key) => changed(key, null)} /> : null}
      {open?.what === "delete" ? (
        <DeleteDialog
          subject={open.key}
          onClose={close}
          onDeleted={() => {
            close();
            setVersion(version + 1);
          }}
        />
      ) : null}
      {issued ? <SecretDialog issued={issued} onClose={() => setIssued(null)} /> : null}
    </>
  );
}

function columnsOf(used: Map<string, UsageRow>, withTenant: boolean, onOpen: (key: Key) => void): Column<Key>[] {
  const number = (key: Key, read: (row: UsageRow) => number): number => {
    const row = used.get(key.id);
    return row ? read(row) : 0;
  };
  const tenantColumn: Column<Key> = { id: "tenant", title: t("keys.tenant"), wideOnly: true, cell: (key) => key.tenant };
  return [
    {
      id: "label",
      title: t("keys.label"),
      cell: (key) => (
        <button type="button" class="keys-name" onClick={() => onOpen(key)}>
          {key.label}
        </button>
      ),
    },
    ...(withTenant ? [tenantColumn] : []),
    {
      id: "state",
      title: t("keys.state"),
      cell: (key) => <span class={`keys-state keys-state-${key.state}`}>{t(`keys.state.${key.state}`)}</span>,
    },
    {
      id: "requests",
      title: t("keys.requests_30"),
      number: true,
      cell: (key) => formatNumber(number(key, (row) => row.requests)),
    },
    {
      id: "tokens",
      title: t("keys.tokens_30"),
      number: true,
      cell: (key) => formatNumber(number(key, (row) => row.prompt_tokens + row.completion_tokens)),
    },
    { id: "cost", title: t("keys.cost_30"), number: true, wideOnly: true, cell: (key) => formatMoney(number(key, (row) => row.cost)) },
    { id: "limits", title: t("keys.limits"), wideOnly: true, cell: (key) => limitsInWords(key).join("; ") || t("keys.no_limits") },
    {
      id: "expires",
      title: t("keys.expires"),
      wideOnly: true,
      cell: (key) => (key.expires_at === null ? t("keys.expiry.never") : formatTime(key.expires_at, "date")),
    },
    {
      id: "manage",
      title: t("keys.actions"),
      cell: (key) => <IconButton small icon="more" label={t("keys.manage", { label: key.label })} onClick={() => onOpen(key)} />,
    },
  ];
}
