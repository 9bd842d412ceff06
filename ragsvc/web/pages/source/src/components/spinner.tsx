import "./spinner.css";

/** A sign that something runs; `label` is read by screen readers. */
export function Spinner({ label, small }: { label?: string; small?: boolean }) {
  const name = small ? "spinner spinner-small" : "spinner";
  return label ? (
    <span class="spinner-line" role="status">
      <span class={name} aria-hidden="true" />
      <span>{label}</span>
    </span>
  ) : (
    <span class={name} aria-hidden="true" />
  );
}
