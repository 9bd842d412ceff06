import type { OwnKey } from "../../api/keys";
import { formatNumber, t } from "../../texts";
import { KeyFacts } from "./key_dialogs";
import { formatMoney } from "./limits";
import { Use } from "./use";

interface MeterProps {
  title: string;
  used: number;
  /** What there is in all; null without a limit. */
  limit: number | null;
  format: (value: number) => string;
}

function Meter({ title, used, limit, format }: MeterProps) {
  const left = limit === null ? null : Math.max(0, limit - used);
  return (
    <div class="keys-meter">
      <strong>{title}</strong>
      {limit === null || left === null ? (
        <span>{t("keys.own.used", { used: format(used) })}</span>
      ) : (
        <>
          <meter min={0} max={limit || 1} value={Math.min(used, limit)} low={limit * 0.75} high={limit * 0.9} optimum={0} aria-label={title} />
          <span>{t("keys.own.left_of", { left: format(left), limit: format(limit) })}</span>
        </>
      )}
    </div>
  );
}

/** What every key can see of itself: limits, what is left of them, and its use. */
export function OwnKeyView({ own }: { own: OwnKey }) {
  const plain = (value: number): string => formatNumber(value);
  const granted = (all: number | null, left: number | null): number => (all === null || left === null ? 0 : Math.max(0, all - left));
  return (
    <>
      <section class="card stack keys-section">
        <h2>{own.label}</h2>
        <p>{t("keys.own.text")}</p>
        <KeyFacts of={own} />
      </section>
      <section class="card stack keys-section">
        <h2>{t("keys.own.left")}</h2>
        <div class="keys-meters">
          <Meter title={t("keys.own.tokens_today")} used={own.tokens_used_today} limit={own.tokens_per_day} format={plain} />
          {own.tokens_granted !== null ? (
            <Meter title={t("keys.own.tokens")} used={granted(own.tokens_granted, own.token_balance)} limit={own.tokens_granted} format={plain} />
          ) : null}
          <Meter title={t("keys.own.money_today")} used={own.money_used_today} limit={own.money_per_day} format={formatMoney} />
          {own.money_granted !== null ? (
            <Meter title={t("keys.own.money")} used={granted(own.money_granted, own.money_balance)} limit={own.money_granted} format={formatMoney} />
          ) : null}
          <div class="keys-meter">
            <strong>{t("keys.own.requests")}</strong>
            <span>{own.requests_remaining === null ? t("keys.own.unlimited") : formatNumber(own.requests_remaining)}</span>
          </div>
        </div>
        <p class="small soft">{t("keys.own.renews")}</p>
      </section>
      <h2>{t("keys.own.use")}</h2>
      <Use of="own" tenant={null} keyId={null} names={new Map()} dimensions={["none", "model", "family"]} />
    </>
  );
}
