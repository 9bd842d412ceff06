/** The path under which a proxy serves ragsvc, without a slash at the end; "" if there is none. */
export const prefix: string =
  document.querySelector<HTMLMetaElement>('meta[name="ragsvc-prefix"]')?.content.replace(/\/+$/, "") ?? "";

/** The URL of a path of the service, such as `/v1/models` or `/documents`. */
export function href(path: string): string {
  return prefix + path;
}
