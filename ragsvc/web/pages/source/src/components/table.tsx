import type { ComponentChildren, Key } from "preact";
import { t } from "../texts";
import { Icon } from "./icons";
import "./table.css";

export interface Column<Row> {
  id: string;
  title: string;
  cell: (row: Row) => ComponentChildren;
  /** Numbers are set flush right. */
  number?: boolean;
  sortable?: boolean;
  /** Left out on narrow screens. */
  wideOnly?: boolean;
  /** The title is for screen readers only. */
  hideTitle?: boolean;
}

export interface Sorting {
  column: string;
  descending: boolean;
}

interface TableProps<Row> {
  /** What the table lists, for screen readers. */
  caption: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  rowKey: (row: Row) => Key;
  sorting?: Sorting;
  onSort?: (sorting: Sorting) => void;
  empty?: ComponentChildren;
}

/** A table that scrolls sideways inside its frame where it is wider than the screen. */
export function Table<Row>({ caption, columns, rows, rowKey, sorting, onSort, empty }: TableProps<Row>) {
  if (!rows.length) return <p class="table-empty">{empty ?? t("shell.empty")}</p>;
  return (
    <div class="table-frame" role="region" aria-label={caption} tabIndex={0}>
      <table class="table">
        <caption class="visually-hidden">{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => (
              <Heading key={column.id} column={column} sorting={sorting} onSort={onSort} />
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)}>
              {columns.map((column) => (
                <td key={column.id} class={classOf(column)}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function classOf<Row>(column: Column<Row>): string | undefined {
  return [column.number && "table-number", column.wideOnly && "table-wide"].filter(Boolean).join(" ") || undefined;
}

interface HeadingProps<Row> {
  column: Column<Row>;
  sorting: Sorting | undefined;
  onSort: ((sorting: Sorting) => void) | undefined;
}

function Heading<Row>({ column, sorting, onSort }: HeadingProps<Row>) {
  const sorted = sorting?.column === column.id ? sorting : undefined;
  const order = sorted ? (sorted.descending ? "descending" : "ascending") : undefined;
  return (
    <th scope="col" class={classOf(column)} aria-sort={order}>
      {column.sortable && onSort ? (
        <button
          type="button"
          class="table-sort"
          onClick={() => onSort({ column: column.id, descending: sorted ? !sorted.descending : false })}
        >
          {column.title}
          {sorted ? <Icon name={sorted.descending ? "down" : "up"} size={14} /> : null}
        </button>
      ) : column.hideTitle ? (
        <span class="visually-hidden">{column.title}</span>
      ) : (
        column.title
      )}
    </th>
  );
}
