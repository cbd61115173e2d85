CREATE TABLE IF NOT EXISTS notification (
    source text NOT NULL,
    id text NOT NULL,
    status text,
    status_description text,
    provider_response text,
    reference text,
    recipient text,
    notification_type text,
    template_id text,
    template_version bigint,
    created_at timestamptz,
    sent_at timestamptz,
    completed_at timestamptz,
    complained_at timestamptz,
    returned_at timestamptz,
    first_received_at timestamptz NOT NULL,
    last_received_at timestamptz NOT NULL,
    precedence_version timestamptz,
    precedence_rank smallint,
    precedence_fingerprint bytea,
    PRIMARY KEY (id, source)
);
CREATE INDEX IF NOT EXISTS notification_by_reference ON notification (reference)
    WHERE reference IS NOT NULL;
CREATE TABLE IF NOT EXISTS received_message (
    source text NOT NULL,
    id text NOT NULL,
    source_number text,
    destination_number text,
    message text,
    date_received timestamptz,
    received_at timestamptz NOT NULL,
    precedence_fingerprint bytea NOT NULL,
    PRIMARY KEY (id, source)
);
CREATE TABLE IF NOT EXISTS unrecognised (
    change_id text NOT NULL PRIMARY KEY,
    source text NOT NULL,
    received_at timestamptz NOT NULL,
    reason text NOT NULL
);
