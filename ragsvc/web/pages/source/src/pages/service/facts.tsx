import { Fragment, type ComponentChildren } from "preact";

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

const kinds = { good: "service-mark-good", warn: "service-mark-warn", bad: "service-mark-bad" } as const;

export function Mark({ kind, children }: { kind: keyof typeof kinds; children: ComponentChildren }) {
  return <span class={`service-mark ${kinds[kind]}`}>{children}</span>;
}
