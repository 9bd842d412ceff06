import { request } from "./request";

/** A JSON Schema, as far as the reference shows it. */
export interface Schema {
  $ref?: string;
  title?: string;
  description?: string;
  type?: string | string[];
  format?: string;
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  examples?: unknown[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
  prefixItems?: Schema[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
}

export interface Parameter {
  name: string;
  in: "path" | "query" | "header" | "cookie";
  required?: boolean;
  description?: string;
  schema?: Schema;
}

export type Content = Record<string, { schema?: Schema }>;

export interface Operation {
  operationId: string;
  summary?: string;
  description?: string;
  tags?: string[];
  deprecated?: boolean;
  parameters?: Parameter[];
  requestBody?: { required?: boolean; content: Content };
  responses: Record<string, { description?: string; content?: Content }>;
}

/** An operation with its method and path. */
export interface Route {
  method: string;
  path: string;
  tag: string;
  operation: Operation;
}

interface Document {
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components?: { schemas?: Record<string, Schema> };
}

const METHODS = ["get", "post", "put", "patch", "delete"];

/** The OpenAPI document of the service: its routes, and its schemas by name. */
export class ApiDescription {
  readonly routes: readonly Route[];
  readonly version: string;
  private readonly schemas: Record<string, Schema>;

  constructor(document: Document) {
    this.version = document.info.version;
    this.schemas = document.components?.schemas ?? {};
    this.routes = Object.entries(document.paths).flatMap(([path, item]) =>
      METHODS.flatMap((method) => {
        const operation = item[method];
        return operation ? [{ method: method.toUpperCase(), path, tag: operation.tags?.[0] ?? "", operation }] : [];
      }),
    );
  }

  /** The schema that a reference names, or the schema itself. */
  resolve(schema: Schema): Schema {
    if (!schema.$ref) return schema;
    const found = this.schemas[schema.$ref.split("/").pop() ?? ""];
    return found ? { ...found, ...without$ref(schema) } : schema;
  }
}

function without$ref({ $ref: _, ...rest }: Schema): Schema {
  return rest;
}

export async function loadDescription(): Promise<ApiDescription> {
  return new ApiDescription(await request<Document>("GET", "/schema"));
}
