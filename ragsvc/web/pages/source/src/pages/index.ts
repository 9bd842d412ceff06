import type { ComponentType } from "preact";
import type { Scope } from "../api/session";
import type { IconName } from "../components/icons";
import type { TextKey } from "../texts";

export interface PageProps {
  /** What `:name` stands for in the path. */
  params: Record<string, string>;
}

export type PageModule = { default: ComponentType<PageProps> };

export interface PageEntry {
  /** Paths that show the page; the first is that of its entry in the navigation. */
  paths: readonly string[];
  title: TextKey;
  icon: IconName;
  load: () => Promise<PageModule>;
  /** The key needs one of these; every key may open a page without any. */
  scopes?: readonly Scope[];
  /** The navigation does not list the page; links lead to it. */
  unlisted?: true;
}

/** The pages in the order of the navigation; `/` shows the first that the key may open. */
export const pages: readonly PageEntry[] = [
  { paths: ["/ask"], title: "nav.ask", icon: "ask", load: () => import("./ask"), scopes: ["chat", "chat.plain"] },
  {
    paths: ["/documents", "/documents/:id"],
    title: "nav.documents",
    icon: "documents",
    load: () => import("./documents"),
    scopes: ["documents.read"],
  },
  {
    paths: ["/documents/:id/pages/:page"],
    title: "nav.documents",
    icon: "page",
    load: () => import("./cited_page"),
    scopes: ["documents.read"],
    unlisted: true,
  },
  { paths: ["/playground"], title: "nav.playground", icon: "playground", load: () => import("./playground") },
  { paths: ["/keys"], title: "nav.keys", icon: "keys", load: () => import("./keys") },
  { paths: ["/service"], title: "nav.service", icon: "service", load: () => import("./service"), scopes: ["admin"] },
  { paths: ["/reference"], title: "nav.reference", icon: "reference", load: () => import("./reference") },
];
