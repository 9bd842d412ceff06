import { useEffect, useState } from "preact/hooks";
import { href } from "../api/prefix";
import { loadSession, session, signOut } from "../api/session";
import { Button, IconButton } from "../components/button";
import { Icon } from "../components/icons";
import { Notice } from "../components/notice";
import { Spinner } from "../components/spinner";
import { errorText, toastError, Toasts } from "../components/toast";
import { pages } from "../pages";
import { language, t, type Language } from "../texts";
import { findPage, mayOpen, PageView } from "./page_view";
import { setLanguage, setTheme, theme, type Theme } from "./preferences";
import { fragment, navigate, path, startRouter } from "./router";
import "./shell.css";
import { SignIn } from "./sign_in";

export function App() {
  const [error, setError] = useState<unknown>(null);
  const load = (): void => {
    setError(null);
    loadSession().catch(setError);
  };
  useEffect(() => {
    load();
    return startRouter((to) => to === "/sign-in" || findPage(to) !== null);
  }, []);
  if (session.value === undefined) {
    return (
      <main class="sign-in">
        {error ? (
          <div class="stack">
            <Notice kind="error">{errorText(error)}</Notice>
            <Button icon="retry" onClick={load}>
              {t("shell.retry")}
            </Button>
          </div>
        ) : (
          <Spinner label={t("shell.loading")} />
        )}
      </main>
    );
  }
  return (
    <>
      <a class="skip-link" href="#content">
        {t("nav.skip")}
      </a>
      {session.value === null || opensLink() ? <SignedOut /> : <SignedIn />}
      <Toasts />
    </>
  );
}

/** Whether a link to sign in was opened, which replaces a session that may be there. */
function opensLink(): boolean {
  return path.value === "/sign-in" && fragment.value.startsWith("code=");
}

function SignedOut() {
  return (
    <>
      <header class="top">
        <span class="brand">ragsvc</span>
        <span class="top-space" />
        <Preferences />
      </header>
      <SignIn />
    </>
  );
}

function SignedIn() {
  const [open, setOpen] = useState(false);
  const here = path.value;
  useEffect(() => setOpen(false), [here]);
  const key = session.value?.key;
  const leave = async (): Promise<void> => {
    try {
      await signOut();
      navigate("/sign-in");
    } catch (error) {
      toastError(error);
    }
  };
  return (
    <div class="shell">
      <header class="top">
        <IconButton
          class="nav-toggle"
          icon={open ? "close" : "menu"}
          label={t(open ? "nav.close" : "nav.open")}
          aria-expanded={open}
          aria-controls="navigation"
          onClick={() => setOpen(!open)}
        />
        <a class="brand" href={href("/")}>
          ragsvc
        </a>
        <span class="top-space" />
        <span class="account soft small" title={t("shell.account", { label: key?.label ?? "", tenant: key?.tenant ?? "" })}>
          {key?.label}
        </span>
        <IconButton icon="sign_out" label={t("shell.sign_out")} onClick={leave} />
      </header>
      <nav id="navigation" class={open ? "nav nav-open" : "nav"} aria-label={t("nav.label")}>
        <ul>
          {pages.filter((entry) => !entry.unlisted && mayOpen(entry)).map((entry) => {
            const current = findPage(here)?.entry === entry;
            return (
              <li key={entry.paths[0]}>
                <a href={href(entry.paths[0] ?? "/")} aria-current={current ? "page" : undefined}>
                  <Icon name={entry.icon} />
                  {t(entry.title)}
                </a>
              </li>
            );
          })}
        </ul>
        <Preferences />
      </nav>
      <main class="content" id="content" tabIndex={-1}>
        <PageView />
      </main>
    </div>
  );
}

function Preferences() {
  return (
    <div class="preferences">
      <label>
        <span class="visually-hidden">{t("shell.theme")}</span>
        <select value={theme.value} onChange={(event) => setTheme(event.currentTarget.value as Theme)}>
          <option value="system">{t("shell.theme.system")}</option>
          <option value="light">{t("shell.theme.light")}</option>
          <option value="dark">{t("shell.theme.dark")}</option>
        </select>
      </label>
      <label>
        <span class="visually-hidden">{t("shell.language")}</span>
        <select value={language.value} onChange={(event) => setLanguage(event.currentTarget.value as Language)}>
          <option value="en">English</option>
          <option value="de">Deutsch</option>
        </select>
      </label>
    </div>
  );
}
