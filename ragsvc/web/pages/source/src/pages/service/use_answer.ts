import { useEffect, useState } from "preact/hooks";

interface Answer<T> {
  value: T | null;
  error: unknown;
  /** When `value` was read, in Unix seconds. */
  at: number;
  refresh: () => void;
}

/** Reads something when the component appears, and again every `everyS` seconds if that is not 0. */
export function useAnswer<T>(read: () => Promise<T>, everyS = 0): Answer<T> {
  const [value, setValue] = useState<T | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [at, setAt] = useState(0);
  const [version, setVersion] = useState(0);
  useEffect(() => {
    let current = true;
    let timer = 0;
    const run = (): void => {
      read()
        .then(
          (found) => {
            if (!current) return;
            setValue(found);
            setError(null);
            setAt(Date.now() / 1000);
          },
          (reason: unknown) => current && setError(reason),
        )
        .finally(() => {
          if (current && everyS > 0) timer = window.setTimeout(run, everyS * 1000);
        });
    };
    run();
    return () => {
      current = false;
      window.clearTimeout(timer);
    };
  }, [everyS, version]);
  return { value, error, at, refresh: () => setVersion((count) => count + 1) };
}
