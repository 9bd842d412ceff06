CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE collections (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, deleted_at INTEGER, public_id VARCHAR DEFAULT '' NOT NULL, display_name VARCHAR, description VARCHAR, metadata BLOB, last_active_at INTEGER, expires_after_days INTEGER, expires_at INTEGER, 
	UNIQUE (tenant, name)
);
CREATE TABLE documents (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	collection_id INTEGER NOT NULL, 
	filename VARCHAR NOT NULL, 
	media_type VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	stage VARCHAR NOT NULL, 
	title VARCHAR, 
	metadata BLOB NOT NULL, 
	problems BLOB NOT NULL, 
	timings BLOB NOT NULL, 
	failure_code VARCHAR, 
	failure_message VARCHAR, 
	pages_total INTEGER NOT NULL, 
	pages_done INTEGER NOT NULL, 
	passages_total INTEGER NOT NULL, 
	passages_done INTEGER NOT NULL, 
	embedding_model VARCHAR, 
	created_at INTEGER NOT NULL, 
	updated_at INTEGER NOT NULL, 
	ready_at INTEGER, 
	UNIQUE (collection_id, sha256), 
	UNIQUE (public_id), 
	FOREIGN KEY(collection_id) REFERENCES collections (id)
);
CREATE INDEX documents_by_tenant ON documents (tenant, id);
CREATE INDEX documents_by_sha256 ON documents (tenant, sha256);
CREATE TABLE pages (
	document_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	label VARCHAR, 
	text TEXT NOT NULL, checksum BLOB, 
	PRIMARY KEY (document_id, number), 
	FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE TABLE passages (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	document_id INTEGER NOT NULL, 
	ordinal INTEGER NOT NULL, 
	page INTEGER NOT NULL, 
	page_label VARCHAR, 
	start INTEGER NOT NULL, 
	"end" INTEGER NOT NULL, 
	token_count INTEGER NOT NULL, 
	headings BLOB NOT NULL, 
	embedding_hash BLOB NOT NULL, 
	text TEXT NOT NULL, tables BLOB, checksum BLOB, 
	FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE
);
CREATE INDEX passages_by_document ON passages (document_id, ordinal);
CREATE INDEX passages_by_embedding_hash ON passages (embedding_hash);
CREATE TABLE embedding_models (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	dimension INTEGER NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	setting VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (fingerprint)
);
CREATE TABLE embeddings (
	model_id INTEGER NOT NULL, 
	passage_id INTEGER NOT NULL, 
	vector BLOB NOT NULL, 
	PRIMARY KEY (model_id, passage_id), 
	FOREIGN KEY(passage_id) REFERENCES passages (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE INDEX ix_embeddings_passage_id ON embeddings (passage_id);
CREATE TABLE service_state (
	name VARCHAR NOT NULL, 
	value INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	document_id INTEGER NOT NULL, 
	tenant VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	attempts INTEGER NOT NULL, 
	password VARCHAR, 
	created_at INTEGER NOT NULL, 
	UNIQUE (document_id), 
	FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE
);
CREATE TABLE index_log (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	collection_id INTEGER NOT NULL, 
	op VARCHAR NOT NULL, 
	document_id INTEGER NOT NULL, 
	passage_ids BLOB NOT NULL
);
CREATE INDEX index_log_by_collection ON index_log (collection_id, seq);
CREATE TABLE api_keys (
	id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	label VARCHAR NOT NULL, 
	secret_hash BLOB NOT NULL, 
	state VARCHAR NOT NULL, 
	scopes TEXT NOT NULL, 
	allowed_models TEXT NOT NULL, 
	requests_per_minute INTEGER, 
	requests_per_hour INTEGER, 
	tokens_per_day BIGINT, 
	token_balance BIGINT, 
	token_grant BIGINT, 
	token_lease INTEGER NOT NULL, 
	lease_day INTEGER NOT NULL, 
	max_parallel_requests INTEGER, 
	expires_at INTEGER, 
	previous_secret_hash BLOB, 
	previous_expires_at INTEGER, 
	created_at INTEGER NOT NULL, 
	updated_at INTEGER NOT NULL, 
	revision INTEGER NOT NULL, allowed_collections TEXT DEFAULT '[]' NOT NULL, money_per_day BIGINT, money_balance BIGINT, money_grant BIGINT, money_lease BIGINT DEFAULT '0' NOT NULL, money_lease_day INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (id)
);
CREATE INDEX ix_api_keys_tenant ON api_keys (tenant);
CREATE INDEX ix_api_keys_revision ON api_keys (revision);
CREATE TABLE key_audit (
	id INTEGER NOT NULL, 
	at INTEGER NOT NULL, 
	key_id VARCHAR NOT NULL, 
	actor VARCHAR NOT NULL, 
	action VARCHAR NOT NULL, 
	changes TEXT NOT NULL, 
	request_id VARCHAR, tenant VARCHAR DEFAULT '' NOT NULL, 
	PRIMARY KEY (id)
);
CREATE INDEX ix_key_audit_key_id ON key_audit (key_id);
CREATE TABLE idempotency_keys (
	owner VARCHAR NOT NULL, 
	name_hash BLOB NOT NULL, 
	fingerprint BLOB NOT NULL, 
	sealed BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	PRIMARY KEY (owner, name_hash)
);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE TABLE providers (
	name VARCHAR NOT NULL, 
	sealed BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	updated_at INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE provider_keys (
	tenant VARCHAR NOT NULL, 
	provider VARCHAR NOT NULL, 
	sealed BLOB NOT NULL, 
	updated_at INTEGER NOT NULL, 
	PRIMARY KEY (tenant, provider)
);
CREATE TABLE attachments (
	parent_id INTEGER NOT NULL, 
	document_id INTEGER NOT NULL, 
	brought BOOLEAN NOT NULL, 
	PRIMARY KEY (parent_id, document_id), 
	FOREIGN KEY(parent_id) REFERENCES documents (id) ON DELETE CASCADE, 
	FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE INDEX attachments_by_document ON attachments (document_id, parent_id);
CREATE TABLE file_removals (
	tenant VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	PRIMARY KEY (tenant, sha256)
);
CREATE TABLE tenants (
	name VARCHAR NOT NULL, 
	max_collections INTEGER, 
	max_documents BIGINT, 
	max_bytes BIGINT, 
	updated_at INTEGER NOT NULL, money_per_day BIGINT, money_balance BIGINT, money_grant BIGINT, money_lease BIGINT DEFAULT '0' NOT NULL, money_lease_day INTEGER DEFAULT '0' NOT NULL, revision INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE usage (
	key_id VARCHAR NOT NULL, 
	day INTEGER NOT NULL, 
	model VARCHAR NOT NULL, 
	family VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	prompt_tokens BIGINT NOT NULL, 
	completion_tokens BIGINT NOT NULL, 
	requests INTEGER NOT NULL, cost_micros BIGINT DEFAULT '0' NOT NULL, errors INTEGER DEFAULT '0' NOT NULL, timed_requests INTEGER DEFAULT '0' NOT NULL, duration_ms BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (key_id, day, model, family)
);
CREATE INDEX ix_usage_tenant ON usage (tenant, day);
CREATE INDEX jobs_by_tenant ON jobs (state, tenant, id);
CREATE TABLE files (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	filename VARCHAR NOT NULL, 
	media_type VARCHAR NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	purpose VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	created_by VARCHAR, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER, 
	deleted_at INTEGER, 
	implicit BOOLEAN NOT NULL, 
	UNIQUE (public_id)
);
CREATE INDEX files_by_tenant ON files (tenant, id);
CREATE INDEX files_by_size ON files (tenant, deleted_at, implicit, size_bytes);
CREATE INDEX files_by_sha256 ON files (tenant, sha256);
CREATE INDEX files_by_expiry ON files (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX files_by_deletion ON files (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE TABLE document_files (
	document_id INTEGER NOT NULL, 
	file_id INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, collection_id INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (document_id, file_id), 
	FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE, 
	FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE INDEX document_files_by_file ON document_files (file_id, document_id);
CREATE TABLE uploads (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	filename VARCHAR NOT NULL, 
	media_type VARCHAR NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	purpose VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	created_by VARCHAR, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	file_expires_after_s INTEGER, 
	file_id INTEGER, 
	UNIQUE (public_id), 
	FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE SET NULL
);
CREATE INDEX uploads_by_tenant ON uploads (tenant, status);
CREATE INDEX uploads_by_expiry ON uploads (status, expires_at);
CREATE INDEX uploads_by_file ON uploads (file_id);
CREATE TABLE upload_parts (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	upload_id INTEGER NOT NULL, 
	tenant VARCHAR NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	UNIQUE (public_id), 
	FOREIGN KEY(upload_id) REFERENCES uploads (id) ON DELETE CASCADE
);
CREATE INDEX upload_parts_by_upload ON upload_parts (upload_id, size_bytes);
CREATE INDEX upload_parts_by_sha256 ON upload_parts (tenant, sha256, size_bytes);
CREATE UNIQUE INDEX collections_by_public_id ON collections (public_id);
CREATE INDEX collections_by_expiry ON collections (expires_at);
CREATE INDEX document_files_by_collection ON document_files (collection_id, created_at, file_id);
CREATE INDEX documents_by_collection ON documents (collection_id, status, failure_code, size_bytes);
CREATE TABLE file_batches (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	collection_id INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	cancelled_at INTEGER, 
	UNIQUE (public_id), 
	FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE
);
CREATE INDEX file_batches_by_collection ON file_batches (collection_id);
CREATE TABLE batch_files (
	batch_id INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	file_id INTEGER NOT NULL, 
	document_id INTEGER NOT NULL, 
	PRIMARY KEY (batch_id, created_at, file_id), 
	FOREIGN KEY(document_id, file_id) REFERENCES document_files (document_id, file_id) ON DELETE CASCADE, 
	FOREIGN KEY(batch_id) REFERENCES file_batches (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
CREATE INDEX batch_files_by_document ON batch_files (document_id, file_id);
CREATE TABLE expired_stores (
	id INTEGER NOT NULL, 
	public_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	display_name VARCHAR, 
	description VARCHAR, 
	metadata BLOB, 
	created_at INTEGER NOT NULL, 
	last_active_at INTEGER NOT NULL, 
	expires_after_days INTEGER NOT NULL, 
	expired_at INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (public_id)
);
CREATE INDEX expired_stores_by_tenant ON expired_stores (tenant, id);
CREATE INDEX expired_stores_by_time ON expired_stores (expired_at);
CREATE TABLE responses (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	background BOOLEAN NOT NULL, 
	previous_id VARCHAR, 
	collections BLOB NOT NULL, 
	input BLOB NOT NULL, 
	body BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	UNIQUE (public_id)
);
CREATE INDEX responses_by_tenant ON responses (tenant, id);
CREATE INDEX responses_by_age ON responses (created_at);
CREATE INDEX responses_by_status ON responses (status);
CREATE TABLE conversations (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	metadata BLOB NOT NULL, 
	collections BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	last_active_at INTEGER NOT NULL, key_id VARCHAR, 
	UNIQUE (public_id)
);
CREATE INDEX conversations_by_tenant ON conversations (tenant, id);
CREATE INDEX conversations_by_use ON conversations (last_active_at);
CREATE TABLE conversation_items (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	conversation_id INTEGER NOT NULL, 
	public_id VARCHAR NOT NULL, 
	body BLOB NOT NULL, 
	UNIQUE (conversation_id, public_id), 
	FOREIGN KEY(conversation_id) REFERENCES conversations (id) ON DELETE CASCADE
);
CREATE INDEX conversation_items_in_order ON conversation_items (conversation_id, id);
CREATE TABLE web_sessions (
	token_hash BLOB NOT NULL, 
	key_id VARCHAR NOT NULL, 
	secret_hash BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	PRIMARY KEY (token_hash), 
	FOREIGN KEY(key_id) REFERENCES api_keys (id) ON DELETE CASCADE
);
CREATE INDEX web_sessions_by_key ON web_sessions (key_id);
CREATE INDEX web_sessions_by_expiry ON web_sessions (expires_at);
CREATE TABLE session_links (
	token_hash BLOB NOT NULL, 
	key_id VARCHAR NOT NULL, 
	secret_hash BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	PRIMARY KEY (token_hash), 
	FOREIGN KEY(key_id) REFERENCES api_keys (id) ON DELETE CASCADE
);
CREATE INDEX session_links_by_key ON session_links (key_id);
CREATE INDEX session_links_by_expiry ON session_links (expires_at);
CREATE TABLE feedback (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	key_id VARCHAR NOT NULL, 
	rating VARCHAR NOT NULL, 
	answer_id VARCHAR, 
	body BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	UNIQUE (public_id)
);
CREATE INDEX feedback_by_tenant ON feedback (tenant, id);
CREATE INDEX feedback_by_key ON feedback (tenant, key_id, id);
CREATE INDEX feedback_by_answer ON feedback (tenant, key_id, answer_id);
CREATE INDEX conversations_by_key ON conversations (tenant, key_id, last_active_at, id);
CREATE INDEX conversations_by_use_of_tenant ON conversations (tenant, last_active_at, id);
CREATE INDEX key_audit_by_tenant ON key_audit (tenant, id);
CREATE INDEX documents_by_status ON documents (tenant, status, updated_at, collection_id, media_type);
CREATE INDEX files_by_purpose ON files (tenant, purpose, id);
INSERT INTO sqlite_sequence (name, seq) VALUES ('files', 0);
INSERT INTO alembic_version (version_num) VALUES ('0017');
