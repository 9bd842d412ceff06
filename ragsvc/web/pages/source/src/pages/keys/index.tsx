import { useEffect, useState } from "preact/hooks";
import { listKeys, listTenants, ownKey, type Key, type OwnKey, type TenantView } from "../../api/keys";
import { hasScope, session } from "../../api/session";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { PageHeader } from "../../components/page_header";
import { Spinner } from "../../components/spinner";
import { Tabs } from "../../components/tabs";
import { errorText } from "../../components/toast";
import { navigate, query } from "../../shell/router";
import { t } from "../../texts";
import type { PageProps } from "..";
import { Changes } from "./changes";
import { KeyList } from "./key_list";
import "./keys.css";
import { OwnKeyView } from "./own_key";
import { ProviderKeys } from "./provider_keys";
import { Quota } from "./quota";
import { Use, type Dimension } from "./use";

const parts = ["keys", "use", "changes", "providers", "own"] as const;
type Part = (typeof parts)[number];

export default function KeysPage(_: PageProps) {
  const [own, setOwn] = useState<OwnKey | null>(null);
  const [error, setError] = useState<unknown>(null);
  const manages = hasScope("tenant.admin");
  const part: Part = manages ? (parts.find((name) => name === query.value.get("part")) ?? "keys") : "own";
  useEffect(() => {
    setError(null);
    ownKey().then(setOwn, setError);
  }, [part, session.value?.key.id]);
  return (
    <>
      <PageHeader title={t("nav.keys")} />
      {error ? <Notice kind="error">{errorText(error)}</Notice> : null}
      {manages ? <Administration part={part} own={own} /> : own ? <OwnKeyView own={own} /> : error ? null : <Spinner label={t("shell.loading")} />}
    </>
  );
}

/** The parts for administrators; what is shown is in the address, so that it can be sent to somebody. */
function Administration({ part, own }: { part: Part; own: OwnKey | null }) {
  const everything = hasScope("admin");
  const [tenants, setTenants] = useState<TenantView[]>([]);
  const [names, setNames] = useState<ReadonlyMap<string, string>>(new Map());
  const chosen = query.value.get("tenant");
  const tenant = everything ? chosen : (session.value?.key.tenant ?? null);
  const keyId = query.value.get("key");
  useEffect(() => {
    if (everything) listTenants().then(setTenants, () => setTenants([]));
  }, [everything, part]);
  useEffect(() => {
    let current = true;
    namesOfKeys(tenant).then(
      (found) => current && setNames(found),
      () => undefined, // ids are shown instead
    );
    return () => {
      current = false;
    };
  }, [tenant, part]);
  const go = (to: { part?: Part; tenant?: string | null; key?: string | null }): void => {
    const next = { part, tenant: chosen, key: null, ...to };
    const values = new URLSearchParams();
    for (const [name, value] of Object.entries(next)) if (value) values.set(name, value);
    navigate(`/keys?${values.toString()}`);
  };
  const dimensions: readonly Dimension[] =
    everything && tenant === null ? ["none", "tenant", "key_id", "model", "family"] : ["none", "key_id", "model", "family"];
  return (
    <>
      {everything ? (
        <div class="keys-bar">
          <Field label={t("keys.tenant")}>
            <select value={tenant ?? ""} onChange={(event) => go({ tenant: event.currentTarget.value || null })}>
              <option value="">{t("keys.tenant.all")}</option>
              {tenants.map((one) => (
                <option key={one.name} value={one.name}>
                  {one.name}
                </option>
              ))}
              {tenant && !tenants.some((one) => one.name === tenant) ? <option value={tenant}>{tenant}</option> : null}
            </select>
          </Field>
        </div>
      ) : null}
      <Tabs
        label={t("keys.parts")}
        tabs={parts.map((name) => ({ id: name, title: t(`keys.tab.${name}`) }))}
        selected={part}
        onSelect={(name) => go({ part: name as Part })}
      >
        {part === "keys" ? (
          <KeyList
            tenant={tenant}
            tenants={tenants}
            own={own}
            onShowUse={(key: Key) => go({ part: "use", key: key.id })}
            onShowChanges={(key: Key) => go({ part: "changes", key: key.id })}
          />
        ) : null}
        {part === "use" ? (
          <>
            {tenant !== null && !keyId ? <Quota tenant={tenant} /> : null}
            <div class="keys-bar">
              <Field label={t("keys.use.key")}>
                <select value={keyId ?? ""} onChange={(event) => go({ key: event.currentTarget.value || null })}>
                  <option value="">{t("keys.use.key.all")}</option>
                  {[...names].map(([id, label]) => (
                    <option key={id} value={id}>
                      {label}
                    </option>
                  ))}
                  {keyId && !names.has(keyId) ? <option value={keyId}>{keyId}</option> : null}
                </select>
              </Field>
            </div>
            <Use of="all" tenant={tenant} keyId={keyId} names={names} dimensions={dimensions} />
          </>
        ) : null}
        {part === "changes" ? <Changes tenant={tenant} keyId={keyId} names={names} onShowAll={() => go({ key: null })} /> : null}
        {part === "providers" ? <ProviderKeys tenant={tenant} /> : null}
        {part === "own" ? own ? <OwnKeyView own={own} /> : <Spinner label={t("shell.loading")} /> : null}
      </Tabs>
    </>
  );
}

const MOST_PAGES = 20;

async function namesOfKeys(tenant: string | null): Promise<Map<string, string>> {
  const names = new Map<string, string>();
  const taken = new Set<string>();
  let after: string | null = null;
  for (let page = 0; page < MOST_PAGES; page++) {
    const found: Awaited<ReturnType<typeof listKeys>> = await listKeys(tenant, after);
    for (const key of found.data) {
      names.set(key.id, taken.has(key.label) ? `${key.label} (${key.id})` : key.label); // two keys may have one name
      taken.add(key.label);
    }
    if (!found.has_more) break;
    after = found.last_id;
  }
  return names;
}
