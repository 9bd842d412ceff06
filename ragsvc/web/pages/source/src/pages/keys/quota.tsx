import { Fragment } from "preact";
import { useEffect, useState } from "preact/hooks";
import { getTenant, type TenantView } from "../../api/keys";
import { formatBytes, formatNumber, t } from "../../texts";
import { formatMoney } from "./limits";

/** What a tenant has stored, and what it may store and spend. */
export function Quota({ tenant }: { tenant: string }) {
  const [view, setView] = useState<TenantView | null>(null);
  useEffect(() => {
    let current = true;
    setView(null);
    getTenant(tenant).then(
      (found) => current && setView(found),
      () => undefined, // a tenant that has nothing yet
    );
    return () => {
      current = false;
    };
  }, [tenant]);
  if (!view) return null;
  const of = (used: number, limit: number | null, format: (value: number) => string): string =>
    limit === null ? format(used) : t("keys.quota.of", { used: format(used), limit: format(limit) });
  const plain = (value: number): string => formatNumber(value);
  const { limits } = view;
  const facts: [string, string][] = [
    [t("keys.quota.documents"), of(view.documents, limits.max_documents, plain)],
    [t("keys.quota.collections"), of(view.collections, limits.max_collections, plain)],
    [t("keys.quota.bytes"), of(view.bytes, limits.max_bytes, formatBytes)],
  ];
  if (limits.money_balance !== null) facts.push([t("keys.quota.money"), formatMoney(limits.money_balance)]);
  if (limits.money_per_day !== null) facts.push([t("keys.quota.money_day"), formatMoney(limits.money_per_day)]);
  return (
    <section class="card stack keys-section">
      <h2>{t("keys.quota.title", { name: view.name })}</h2>
      <dl class="keys-facts">
        {facts.map(([name, value]) => (
          <Fragment key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </Fragment>
        ))}
      </dl>
    </section>
  );
}
