import type { JSX } from "preact";

/** Paths in a box of 24 × 24, drawn as lines. */
const shapes = {
  ask: "M4 5h16v11H10l-5 4v-4H4z M8 9h8 M8 12h5",
  documents: "M6 3h8l4 4v14H6z M14 3v4h4 M9 12h6 M9 16h6",
  playground: "M5 4v16 M12 4v16 M19 4v16 M3 9h4 M10 15h4 M17 8h4",
  keys: "M8 15a4 4 0 1 1 3.5-2L21 13v4h-3v-2h-3l-3.5-2 M7 11h.01",
  service: "M4 5h16v6H4z M4 13h16v6H4z M8 8h.01 M8 16h.01 M12 8h5 M12 16h5",
  reference: "M8 6l-5 6 5 6 M16 6l5 6-5 6 M14 4l-4 16",
  menu: "M4 7h16 M4 12h16 M4 17h16",
  close: "M6 6l12 12 M18 6L6 18",
  check: "M5 13l4 4L19 7",
  warning: "M12 4l9 16H3z M12 10v4 M12 17h.01",
  error: "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18z M12 7v6 M12 16.5h.01",
  info: "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18z M12 11v6 M12 7.5h.01",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8z M12 2v3 M12 19v3 M2 12h3 M19 12h3 M5 5l2 2 M17 17l2 2 M5 19l2-2 M17 7l2-2",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  sign_out: "M10 4H4v16h6 M9 12h12 M17 8l4 4-4 4",
  send: "M4 12L20 4l-5 16-4-7z M11 13l9-9",
  stop: "M7 7h10v10H7z",
  retry: "M20 12a8 8 0 1 1-2.5-5.8 M20 3v5h-5",
  copy: "M9 9h11v11H9z M5 15H4V4h11v1",
  plus: "M12 5v14 M5 12h14",
  minus: "M5 12h14",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  up: "M5 15l7-7 7 7",
  down: "M5 9l7 7 7-7",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13z M15.5 15.5L21 21",
  upload: "M12 16V4 M7 9l5-5 5 5 M4 16v4h16v-4",
  download: "M12 4v12 M7 11l5 5 5-5 M4 16v4h16v-4",
  trash: "M4 7h16 M9 7V4h6v3 M6 7l1 13h10l1-13 M10 11v6 M14 11v6",
  edit: "M4 20l1-5L16 4l4 4L9 19z M14 6l4 4",
  external: "M14 4h6v6 M20 4l-9 9 M18 14v6H4V6h6",
  folder: "M3 6h6l2 2h10v11H3z",
  filter: "M4 5h16l-6 8v6l-4-2v-4z",
  thumb_up: "M7 11v9H4v-9z M7 11l4-7c2 0 3 1 2 6h6l-2 10H7",
  thumb_down: "M7 13V4H4v9z M7 13l4 7c2 0 3-1 2-6h6L17 4H7",
  history: "M4 12a8 8 0 1 0 2.5-5.8 M4 3v5h5 M12 8v5l3 2",
  more: "M5 11h2v2H5z M11 11h2v2h-2z M17 11h2v2h-2z",
  settings: "M4 7h9 M17 7h3 M4 17h3 M11 17h9 M15 5v4 M9 15v4",
  print: "M7 9V3h10v6 M7 17H4V9h16v8h-3 M7 14h10v7H7z",
  page: "M6 3h12v18H6z",
  outline: "M4 6h3 M10 6h10 M7 12h3 M13 12h7 M7 18h3 M13 18h7",
  zoom_in: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13z M15.5 15.5L21 21 M7.5 10.5h6 M10.5 7.5v6",
  zoom_out: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13z M15.5 15.5L21 21 M7.5 10.5h6",
} as const;

export type IconName = keyof typeof shapes;

/** A picture beside a text or in a button with a label; it is hidden from screen readers. */
export function Icon({ name, size = 20 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg
      class="icon"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.8"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      <path d={shapes[name]} />
    </svg>
  );
}
