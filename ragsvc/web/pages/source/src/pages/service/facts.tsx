import { Fragment, type ComponentChildren } from "preact";
import { Button } from "../../components/button";
import { Notice } from "../../components/notice";
import { errorText } from "../../components/toast";
import { t } from "../../texts";

export type Fact = readonly [name: string, value: ComponentChildren];

/** A card with names and values. */
export function Facts({ title, facts, children }: { title: string; facts: readonly Fact[]; children?: ComponentChildren }) {
  return (
    <section class="card">
      <h2>{title}</h2>
      <dl class="service-facts">
        {facts.map(([name, value]) => (
          <Fragment key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </Fragment>
        ))}
      </dl>
      {children}
    </section>
  );
}

/** Why something could not be read, with a button that reads it again. */
export function ReadFailure({ error, onRetry }: { error: unknown; onRetry: () => void }) {
  return (
    <div class="stack">
      <Notice kind="error">{errorText(error)}</Notice>
      <div>
        <Button icon="retry" onClick={onRetry}>
          {t("shell.retry")}
        </Button>
      </div>
    </div>
  );
}

const kinds = { good: "service-mark-good", warn: "service-mark-warn", bad: "service-mark-bad" } as const;

export function Mark({ kind, children }: { kind: keyof typeof kinds; children: ComponentChildren }) {
  return <span class={`service-mark ${kinds[kind]}`}>{children}</span>;
}
