-- One row an address: two clients can never hold the same one.
CREATE TABLE leases (
    network  TEXT     NOT NULL,
    address  BIGINT   NOT NULL,
    client   TEXT     NOT NULL,
    mac      TEXT,
    state    TEXT     NOT NULL,
    until_ms BIGINT   NOT NULL,
    PRIMARY KEY (network, address)
);

-- One row a power-on of a host.
CREATE TABLE boots (
    id         TEXT   NOT NULL PRIMARY KEY,
    host       TEXT   NOT NULL,
    started_ms BIGINT NOT NULL,
    detail     TEXT   NOT NULL
);

CREATE INDEX boots_by_host ON boots (host, started_ms);

-- What happened during a boot, in order.
CREATE TABLE boot_events (
    boot  TEXT     NOT NULL,
    seq   BIGINT   NOT NULL,
    at_ms BIGINT   NOT NULL,
    event TEXT     NOT NULL,
    PRIMARY KEY (boot, seq)
);
