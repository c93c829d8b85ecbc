-- Values that are replaced whole: states of hosts, rollouts, tokens.
CREATE TABLE documents (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);

-- What is only ever added: events, audit. Numbered in each kind.
CREATE TABLE records (
    kind    TEXT   NOT NULL,
    seq     BIGINT NOT NULL,
    at_ms   BIGINT NOT NULL,
    subject TEXT   NOT NULL,
    body    TEXT   NOT NULL,
    PRIMARY KEY (kind, seq)
);

CREATE INDEX records_by_subject ON records (kind, subject, seq);
