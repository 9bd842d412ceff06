"""The commands and their options. An option's help text is its documentation; the other modules do the work."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ragsvc import __version__
from ragsvc.cli import administration
from ragsvc.cli.execution import execute
from ragsvc.cli.failures import usage_error
from ragsvc.cli.options import DataDir, Json, Tenant, Url
from ragsvc.cli.options import on_target as _on_target
from ragsvc.cli.output import Output, print_json
from ragsvc.cli.target import Target
from ragsvc.core.defaults import (
    DEFAULT_COLLECTION,
    DEFAULT_MAX_BUFFER_BYTES,
    DEFAULT_PROXY_BODY_BYTES,
    DEFAULT_TOP_K,
    LOCAL_MODEL,
    MAX_TOP_K,
)

_EXIT_CODES = (
    "Exit codes: 0 done · 1 the task failed (or a part of it) · 2 wrong usage or settings · "
    "3 the service does not answer · 4 the key is missing or lacks permission · 5 the data directory is in use · "
    "6 refused for now (limit reached, queue full, "
    "no tokens left) · 130 interrupted."
)

app = typer.Typer(
    name="ragsvc",
    help="A private, OpenAI-compatible document service: PDFs in, answers with page-exact citations out.\n\n"
    "Commands work on the service that --url (or RAGSVC_URL) names, with the key in RAGSVC_API_KEY; without a URL "
    "they work on the data directory itself.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys_app = typer.Typer(help="Manage API keys (also while a service runs).", no_args_is_help=True)
documents_app = typer.Typer(help="List, show, delete and retry documents.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(documents_app, name="documents")
app.add_typer(administration.tenants_app, name="tenants")
app.add_typer(administration.collections_app, name="collections")
administration.add_key_commands(keys_app)

CollectionName = Annotated[str, typer.Option("--collection", "-c", metavar="NAME", help="The collection.")]
Mode = Annotated[str, typer.Option("--mode", metavar="hybrid|dense|lexical", help="How passages are ranked.")]
DocumentIds = Annotated[
    list[str] | None, typer.Option("--document", "-d", metavar="ID", help="Search only this document; repeatable.")
]
Filters = Annotated[
    str | None,
    typer.Option("--filters", metavar="JSON", help="A metadata filter, in the format of OpenAI's vector stores."),
]


def run() -> None:
    app()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: RAGSVC_HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = None,
    unix_socket: Annotated[
        Path | None, typer.Option("--unix-socket", help="Unix socket to listen on instead of host and port.")
    ] = None,
    ssl_certfile: Annotated[
        Path | None, typer.Option("--ssl-certfile", help="TLS certificate with its chain, PEM; serve HTTPS.")
    ] = None,
    ssl_keyfile: Annotated[
        Path | None, typer.Option("--ssl-keyfile", help="Private key of the certificate, if in another file.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON, one per line.")] = False,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. Running answers are finished; ingest jobs resume at the next start."""
    from ragsvc.cli.logs import log_refused_start  # noqa: PLC0415 - keeps other commands fast
    from ragsvc.cli.process_tuning import (  # noqa: PLC0415 - only a long process gains
        keep_heap_small,
        let_threads_alternate,
        suspend_collections,
    )

    async def command(output: Output) -> None:
        from ragsvc.cli.serve import ServeOptions  # noqa: PLC0415 - heavy
        from ragsvc.cli.serve import serve as run_service  # noqa: PLC0415 - heavy

        options = ServeOptions(
            host=host, port=port, unix_socket=unix_socket, ssl_certfile=ssl_certfile, ssl_keyfile=ssl_keyfile
        )
        await run_service(Target(data_dir=data_dir), options, output=output)

    suspend_collections()
    keep_heap_small()
    let_threads_alternate()
    execute(command, as_json=as_json, fast_loop=True, log_failure=log_refused_start)


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(metavar="FOLDER|FILE…", help="Folders (recursively) and files.")],
    collection: CollectionName = DEFAULT_COLLECTION,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="GLOB",
            help="Only files that match (default: every type that can be read); repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Skip files and folders that match; repeatable."),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Stored with each document.")
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(
            "--parallel",
            "-p",
            min=1,
            max=64,
            help="Number of files processed at the same time; eight files of up to 8 KiB count as one.",
        ),
    ] = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Print what would be done, and do nothing.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete documents whose file no longer exists in the given folders.")
    ] = False,
    prune_all: Annotated[bool, typer.Option("--prune-all", help="Prune even if no file is left.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry files that failed before.")] = False,
    hidden: Annotated[bool, typer.Option("--hidden", help="Include names that begin with a dot.")] = False,
    follow_symlinks: Annotated[bool, typer.Option("--follow-symlinks", "-L", help="Follow symbolic links.")] = False,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE.json", help="Write the full report.")] = None,
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Ingest folders of files. A repeated run processes only what changed. Exit code 1 if a file failed."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli.ingest.command import IngestCommandOptions  # noqa: PLC0415 - keeps other commands fast
        from ragsvc.cli.ingest.command import ingest as run_ingest  # noqa: PLC0415 - keeps other commands fast
        from ragsvc.cli.ingest.folders import FileSelection  # noqa: PLC0415 - keeps other commands fast

        options = IngestCommandOptions(
            sources=tuple(sources),
            selection=FileSelection(
                include=tuple(include or ()),
                exclude=tuple(exclude or ()),
                hidden=hidden,
                follow_links=follow_symlinks,
            ),
            collection=collection,
            metadata=_pairs(metadata or []),
            parallel=parallel,
            dry_run=dry_run,
            prune=prune or prune_all,
            prune_all=prune_all,
            retry_failed=retry_failed,
            report=report,
        )
        await run_ingest(target, options, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@app.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY")],
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, max=MAX_TOP_K, help="Number of passages.")
    ] = DEFAULT_TOP_K,
    mode: Mode = "hybrid",
    collection: CollectionName = DEFAULT_COLLECTION,
    document: DocumentIds = None,
    filters: Filters = None,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0, max=1, help="Lowest score of a returned passage.")
    ] = 0.0,
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Search, and print passages with file, page and score."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli.ask import search as run_search  # noqa: PLC0415 - keeps other commands fast

        body = _where(collection, document, filters, top_k=top_k, mode=mode, min_score=min_score)
        await run_search(target, {"query": query, **body}, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    model: Annotated[str, typer.Option("--model", help="The chat model that answers.")] = LOCAL_MODEL,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is generated.")] = False,
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", min=1, max=MAX_TOP_K, help="Number of passages in the prompt.")
    ] = None,
    mode: Mode = "hybrid",
    collection: CollectionName = DEFAULT_COLLECTION,
    document: DocumentIds = None,
    filters: Filters = None,
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Ask a question about the documents; prints the answer and its citations with file, page and quote."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli.ask import ask as run_ask  # noqa: PLC0415 - keeps other commands fast

        if stream and as_json:
            raise usage_error("--stream and --json cannot be combined: JSON is printed as a whole")
        if not question.strip():
            raise usage_error("the question is empty")
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "use_rag": True,
            "rag": _where(collection, document, filters, mode=mode, **({} if top_k is None else {"top_k": top_k})),
        }
        await run_ask(target, body, output, stream=stream)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@app.command("open")
def open_(
    browser: Annotated[bool, typer.Option("--browser", help="Also open the link in the default browser.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print a link that signs in to the web pages of a running service, once."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli.open_pages import open_pages  # noqa: PLC0415 - keeps other commands fast

        await open_pages(target, output, browser=browser)

    _on_target(work, as_json=as_json, url=url, data_dir=None, tenant=None)


@app.command()
def evaluate(
    questions: Annotated[
        Path,
        typer.Argument(metavar="QUESTIONS.jsonl", help="JSON Lines: a question and the place of its answer per line."),
    ],
    mode: Annotated[
        list[str] | None,
        typer.Option(
            "--mode", metavar="hybrid|dense|lexical", help="A mode to compare (default: all three); repeatable."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            metavar="KEY=VALUE,…",
            help="Another setting: name, mode, top_k, min_score, rerank; or JSON, also with filters; repeatable.",
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, max=MAX_TOP_K, help="Number of passages.")
    ] = DEFAULT_TOP_K,
    collection: CollectionName = DEFAULT_COLLECTION,
    filters: Filters = None,
    within_document: Annotated[
        bool, typer.Option("--within-document", help="Search each question only in the document that it names.")
    ] = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Skip questions that name an unknown document, page or excerpt.")
    ] = False,
    answers: Annotated[bool, typer.Option("--answers", help="Also ask a chat model, and judge its answers.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help=f"The chat model for --answers (default: {LOCAL_MODEL}).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the order of requests and of the bootstrap.")] = 0,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write an HTML report with plots.")
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Measure search on your own questions and compare settings; reports which differences are significant."""

    async def work(target: Target, output: Output) -> None:
        if find_spec("scipy") is None or find_spec("sklearn") is None:
            raise usage_error("'ragsvc evaluate' needs the extra 'evaluate': pip install 'ragsvc[evaluate]'")
        from ragsvc.cli.evaluate import EvaluateOptions  # noqa: PLC0415 - heavy
        from ragsvc.cli.evaluate import evaluate as run_evaluation  # noqa: PLC0415 - heavy

        options = EvaluateOptions(
            questions=questions,
            modes=mode or [],
            settings=setting or [],
            top_k=top_k,
            filters=None if filters is None else _json_object(filters, "--filters"),
            collection=collection,
            within_document=within_document,
            skip_unknown=skip_unknown,
            model=model or (LOCAL_MODEL if answers else None),
            seed=seed,
            report=report,
        )
        await run_evaluation(target, options, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@keys_app.command("create")
def create_key(
    tenant: Annotated[str, typer.Option("--tenant", metavar="T", help="The tenant that the key belongs to.")],
    label: Annotated[
        str, typer.Option("--label", metavar="L", help="A name that describes the purpose of the key.")
    ] = "command line",
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="A scope of the key (default: all but admin); repeatable.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="GLOB", help="Models that the key may use (default: all); repeatable."),
    ] = None,
    collection: administration.KeyCollections = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="Request limit; 0 for no limit.")] = None,
    requests_per_hour: Annotated[int | None, typer.Option(min=0, help="Request limit; 0 for no limit.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=0, help="Daily token budget.")] = None,
    token_balance: Annotated[int | None, typer.Option(min=0, help="Total token budget.")] = None,
    money_per_day: Annotated[
        float | None, typer.Option(min=0, help="Daily money budget, in the currency of the prices.")
    ] = None,
    money_balance: Annotated[float | None, typer.Option(min=0, help="Total money budget.")] = None,
    expires_in_days: Annotated[float | None, typer.Option(min=0, help="Days until the key expires.")] = None,
    import_secret_stdin: Annotated[
        bool,
        typer.Option(
            "--import-secret-stdin",
            help="Read an existing secret, or sha256:HEX, from standard input; only its hash is kept.",
        ),
    ] = False,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Create an API key. The secret is printed once and is not stored."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import key_commands  # noqa: PLC0415 - keeps other commands fast

        wish: dict[str, Any] = {"label": label, "tenant": tenant}
        lists = {"scopes": scope, "allowed_models": model, "allowed_collections": collection}
        wish |= {name: value for name, value in lists.items() if value}
        if import_secret_stdin:
            wish["secret_sha256"] = administration.read_secret_hash()
        limits = {"requests_per_minute": requests_per_minute, "requests_per_hour": requests_per_hour}
        wish |= {name: value or None for name, value in limits.items() if value is not None}
        budgets = {
            "tokens_per_day": tokens_per_day,
            "token_balance": token_balance,
            "money_per_day": money_per_day,
            "money_balance": money_balance,
        }
        wish |= {name: value for name, value in budgets.items() if value is not None}
        await key_commands.create(target, wish, output, expires_in_days=expires_in_days)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="T", help="Only keys of this tenant.")] = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List API keys, without their secrets."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import key_commands  # noqa: PLC0415 - keeps other commands fast

        await key_commands.list_all(target, tenant, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Revoke an API key. This cannot be undone."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import key_commands  # noqa: PLC0415 - keeps other commands fast

        await key_commands.revoke(target, key_id, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@documents_app.command("list")
def list_documents(
    status: Annotated[
        str | None, typer.Option(help="queued, processing, ready or failed; several separated by commas.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A part of the file name.")] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", metavar="NAME", help="Only this collection.")
    ] = None,
    filters: Filters = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of documents.")] = 100,
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """List documents, newest first; failed documents with the reason."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import document_commands  # noqa: PLC0415 - keeps other commands fast

        asked = {"status": status, "name": name, "collection": collection, "filters": filters}
        given = {key: value for key, value in asked.items() if value is not None}
        await document_commands.list_some(target, given, limit, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@documents_app.command("show")
def show_document(
    document_id: Annotated[str, typer.Argument(metavar="ID")],
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show a document: stage, pages, problems by page, timings."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import document_commands  # noqa: PLC0415 - keeps other commands fast

        await document_commands.show(target, document_id, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@documents_app.command("delete")
def delete_documents(
    document_ids: Annotated[list[str], typer.Argument(metavar="ID…")],
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Delete documents with their files, passages and vectors. This cannot be undone."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import document_commands  # noqa: PLC0415 - keeps other commands fast

        await document_commands.delete(target, document_ids, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@documents_app.command("retry")
def retry_document(
    document_id: Annotated[str, typer.Argument(metavar="ID")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password of an encrypted PDF from standard input.")
    ] = False,
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Retry a failed document, and wait until it is ready or failed."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import document_commands  # noqa: PLC0415 - keeps other commands fast

        password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
        await document_commands.retry(target, document_id, password, output)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@app.command()
def reindex(
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Also compute all embeddings again (slow).")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Delete the indexes and rebuild them from the database. No service may be running on the data directory."""

    async def command(output: Output) -> None:
        from ragsvc.cli.reindex import reindex as run_reindex  # noqa: PLC0415 - heavy

        await run_reindex(Target(data_dir=data_dir), output, embeddings=embeddings)

    execute(command, as_json=as_json)


@app.command()
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Also read every stored file and verify its hash.")] = False,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Check installation, model, data directory, database and indexes. Exit code 1 if a check fails."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli.doctor import doctor as run_doctor  # noqa: PLC0415 - heavy

        await run_doctor(target, output, deep=deep)

    _on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@app.command()
def backup(
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="Folder of the backup; made if it does not exist.")
    ],
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, metavar="N", help="Then remove all but the newest N snapshots.")
    ] = None,
    same_directory: Annotated[
        bool,
        typer.Option("--same-directory", help="Accept an archive that was made from this directory under another id."),
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Back up the data directory, also while a service uses it. A repeated run copies only what changed."""

    async def command(output: Output) -> None:
        from ragsvc.cli.backup import backup as run_backup  # noqa: PLC0415 - keeps other commands fast

        await run_backup(Target(data_dir=data_dir), destination, output, keep=keep, same_directory=same_directory)

    execute(command, as_json=as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder of the backup.")],
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="ID", help="The snapshot to restore (default: the newest).")
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the snapshots, and restore nothing.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Restore a backup into a new or empty data directory, after verifying every part of it."""

    async def command(output: Output) -> None:
        from ragsvc.cli import backup as backup_commands  # noqa: PLC0415 - keeps other commands fast

        if list_only:
            await backup_commands.list_snapshots(source, output)
        else:
            await backup_commands.restore(Target(data_dir=data_dir), source, output, snapshot=snapshot)

    execute(command, as_json=as_json)


@app.command()
def mcp(url: Url = None, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Serve the Model Context Protocol on standard input and output, for clients that start their servers."""

    async def work(target: Target, _: Output) -> None:
        from ragsvc.cli.mcp_stdio import serve_stdio  # noqa: PLC0415 - keeps other commands fast

        await serve_stdio(target)

    _on_target(work, as_json=False, url=url, data_dir=data_dir, tenant=tenant)


@app.command()
def proxy(
    upstream: Annotated[
        str,
        typer.Option("--url", metavar="URL", envvar="RAGSVC_URL", help="The service to send encrypted requests to."),
    ],
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 3000,
    mode: Annotated[
        str, typer.Option(metavar="hpke-stream|rvenc", help="Encryption mode; rvenc supports chat only.")
    ] = ("hpke-stream"),
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", metavar="SHA256", help="Accept only the server key with this fingerprint; repeatable."),
    ] = None,
    request_timeout_s: Annotated[
        float, typer.Option(min=0.1, help="Timeout of a request to the service, in seconds.")
    ] = 30.0,
    max_buffer_bytes: Annotated[
        int, typer.Option(min=1024, help="Largest response held in memory (rvenc).")
    ] = DEFAULT_MAX_BUFFER_BYTES,
    max_body_bytes: Annotated[int, typer.Option(min=1024, help="Largest request body.")] = DEFAULT_PROXY_BODY_BYTES,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON, one per line.")] = False,
) -> None:
    """Run a local OpenAI-compatible endpoint that encrypts every request for the service."""

    async def command(output: Output) -> None:
        from ragsvc.cli.encrypting_proxy import ProxyOptions, run_proxy  # noqa: PLC0415 - keeps other commands fast

        if mode not in ("hpke-stream", "rvenc"):
            raise usage_error("--mode must be hpke-stream or rvenc")
        options = ProxyOptions(
            upstream=upstream,
            host=host,
            port=port,
            mode="rvenc" if mode == "rvenc" else "hpke-stream",
            pins=tuple(pin or ()),
            request_timeout_s=request_timeout_s,
            max_buffer_bytes=max_buffer_bytes,
            max_body_bytes=max_body_bytes,
        )
        await run_proxy(options, output)

    execute(command, as_json=as_json, fast_loop=True)


@app.command()
def encrypt(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Encrypt a data directory at rest under the configured master key. No service may be running on it."""

    async def command(output: Output) -> None:
        from ragsvc.cli.encrypt_directory import encrypt as run_encrypt  # noqa: PLC0415 - keeps other commands fast

        await run_encrypt(Target(data_dir=data_dir), output)

    execute(command, as_json=as_json)


@app.command("rotate-key")
def rotate_key(
    new_key_file: Annotated[
        Path, typer.Option("--new-key-file", metavar="FILE", help="The file with the new master key.")
    ],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Change the master key of an encrypted data directory. No service may be running on it."""

    async def command(output: Output) -> None:
        from ragsvc.cli.encrypt_directory import rotate_key as run_rotation  # noqa: PLC0415 - keeps other commands fast

        await run_rotation(Target(data_dir=data_dir), new_key_file, output)

    execute(command, as_json=as_json)


@app.command("migrate-to")
def migrate_to(
    database: Annotated[
        str | None,
        typer.Argument(metavar="[URL|directory]", help="The database for the rows: postgresql://…, or 'directory'."),
    ] = None,
    files: Annotated[
        str | None,
        typer.Option(metavar="URL|directory", help="The place for the files: s3://…, file:///…, or 'directory'."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Copy all rows again, instead of going on with an interrupted move.")
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Move rows to another database, and files to another place, or back. No service may be running."""

    async def command(output: Output) -> None:
        from ragsvc.cli.move import migrate  # noqa: PLC0415 - keeps other commands fast

        await migrate(Target(data_dir=data_dir), output, database=database, files=files, from_scratch=from_scratch)

    execute(command, as_json=as_json)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> None:
    if version:
        if as_json:
            print_json({"version": __version__})
        else:
            typer.echo(__version__)
        raise typer.Exit


def _where(collection: str, documents: list[str] | None, filters: str | None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    """The fields of a search request that choose collection, documents and ranking."""
    where: dict[str, Any] = {"collection": collection, **more}
    if documents:
        where["document_ids"] = documents
    if filters is not None:
        where["filters"] = _json_object(filters, "--filters")
    return where


def _json_object(text: str, option: str) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - keeps other commands fast

    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise usage_error(f"{option} must be a JSON object ({error})") from error


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise usage_error(f"--metadata must be KEY=VALUE, not '{text}'")
        pairs[key] = value
    return pairs
