import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

interface PageHeaderProps {
  title: string;
  /** Buttons at the end of the line. */
  children?: ComponentChildren;
}

/** The heading of a page, which is also the title of the window. */
export function PageHeader({ title, children }: PageHeaderProps) {
  useEffect(() => {
    document.title = `${title} – ragsvc`;
  }, [title]);
  return (
    <div class="page-header">
      <h1>{title}</h1>
      {children ? <div class="page-header-actions">{children}</div> : null}
    </div>
  );
}
