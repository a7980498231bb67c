-- Version 1. Runs in one transaction, so that it is there whole or not at all.

CREATE SCHEMA keelson;
COMMENT ON SCHEMA keelson IS 'the state of a keelson cluster; written by keelson only';

CREATE TABLE keelson.schema_version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL
);
INSERT INTO keelson.schema_version (version) VALUES (1);

-- One row. Whoever writes locks it first and holds it until the commit: so the order of commits is the
-- order of revisions, and a rollback gives its revisions back.
CREATE TABLE keelson.head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    cluster uuid NOT NULL DEFAULT gen_random_uuid(),
    revision bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 1,
    compacted bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
INSERT INTO keelson.head DEFAULT VALUES;

CREATE TABLE keelson.objects (
    key text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    value bytea NOT NULL
);

CREATE TABLE keelson.log (
    revision bigint PRIMARY KEY,
    key text COLLATE "C" NOT NULL,
    value bytea
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- What became of the last batch of each writer, so that one whose connection broke during a commit can
-- ask again: the same writer and sequence never apply twice.
CREATE TABLE keelson.writer (
    id text PRIMARY KEY,
    sequence bigint NOT NULL,
    base bigint NOT NULL,
    applied boolean[] NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Whether a write applies to what is there. An expectation of -1: nothing is there; -2: whatever is there.
CREATE FUNCTION keelson.admits(expect bigint, found bigint, deletes boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE expect
        WHEN -1 THEN found IS NULL AND NOT deletes
        WHEN -2 THEN found IS NOT NULL OR NOT deletes
        ELSE coalesce(found = expect, false)
    END
$$;

-- Applies a batch. One statement of the client, so that no client holds the head's lock while it thinks,
-- sleeps or is cut off. Each statement in here sees what was committed before it began, and the first one
-- waits for the lock: so the conditions are checked against the newest state.
CREATE FUNCTION keelson.commit_batch(
    p_epoch bigint, p_writer text, p_sequence bigint, p_distinct boolean,
    p_keys text[], p_expects bigint[], p_values bytea[]
) RETURNS TABLE (slot bigint, done bigint, stands bigint, content bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_head bigint;
    v_epoch bigint;
    v_sequence bigint;
    v_base bigint;
    v_applied boolean[];
    v_end bigint;
    v_write record;
    v_found bigint;
    v_content bytea;
BEGIN
    SELECT h.revision, h.epoch INTO STRICT v_head, v_epoch FROM keelson.head h FOR UPDATE;

    SELECT w.sequence, w.base, w.applied INTO v_sequence, v_base, v_applied
        FROM keelson.writer w WHERE w.id = p_writer;
    IF v_sequence > p_sequence THEN
        RAISE EXCEPTION 'batch % of this writer came after batch %', p_sequence, v_sequence
            USING ERRCODE = 'KE001';
    END IF;

    IF v_sequence IS DISTINCT FROM p_sequence THEN
        IF v_epoch <> p_epoch THEN
            RAISE EXCEPTION '%', v_epoch USING ERRCODE = 'KE002';
        END IF;
        v_base := v_head;
        IF p_distinct THEN
            SELECT coalesce(array_agg(keelson.admits(u.expect, o.revision, u.value IS NULL) ORDER BY u.at), '{}')
                INTO v_applied
                FROM unnest(p_keys, p_expects, p_values) WITH ORDINALITY u (key, expect, value, at)
                LEFT JOIN keelson.objects o ON o.key = u.key;

            WITH a AS MATERIALIZED (
                SELECT u.key, u.value, v_base + row_number() OVER (ORDER BY u.at) AS revision
                FROM unnest(p_keys, p_values, v_applied) WITH ORDINALITY u (key, value, applied, at)
                WHERE u.applied
            ), put AS (
                INSERT INTO keelson.objects AS o (key, revision, value)
                SELECT a.key, a.revision, a.value FROM a WHERE a.value IS NOT NULL
                ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, value = excluded.value
            ), gone AS (
                DELETE FROM keelson.objects o USING a WHERE a.value IS NULL AND o.key = a.key
            )
            INSERT INTO keelson.log (revision, key, value) SELECT a.revision, a.key, a.value FROM a;
            v_end := v_base + cardinality(array_remove(v_applied, false));
        ELSE
            -- A key comes twice: one write after the other, each seeing those before it.
            v_end := v_base;
            v_applied := '{}';
            FOR v_write IN
                SELECT u.key, u.expect, u.value, u.at
                FROM unnest(p_keys, p_expects, p_values) WITH ORDINALITY u (key, expect, value, at)
                ORDER BY u.at
            LOOP
                SELECT o.revision, o.value INTO v_found, v_content
                    FROM keelson.objects o WHERE o.key = v_write.key;
                slot := v_write.at;
                IF keelson.admits(v_write.expect, v_found, v_write.value IS NULL) THEN
                    v_end := v_end + 1;
                    IF v_write.value IS NULL THEN
                        DELETE FROM keelson.objects o WHERE o.key = v_write.key;
                    ELSE
                        INSERT INTO keelson.objects (key, revision, value)
                            VALUES (v_write.key, v_end, v_write.value)
                            ON CONFLICT (key) DO UPDATE
                            SET revision = excluded.revision, value = excluded.value;
                    END IF;
                    INSERT INTO keelson.log (revision, key, value)
                        VALUES (v_end, v_write.key, v_write.value);
                    v_applied := array_append(v_applied, true);
                    done := v_end; stands := NULL; content := NULL;
                ELSE
                    v_applied := array_append(v_applied, false);
                    done := NULL; stands := v_found; content := v_content;
                END IF;
                RETURN NEXT;
            END LOOP;
        END IF;

        IF v_end > v_base THEN
            UPDATE keelson.head SET revision = v_end;
            INSERT INTO keelson.writer (id, sequence, base, applied)
                VALUES (p_writer, p_sequence, v_base, v_applied)
                ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, base = excluded.base,
                    applied = excluded.applied, at = excluded.at;
            PERFORM pg_notify('keelson', v_end::text);
        END IF;
        IF NOT p_distinct THEN
            RETURN;
        END IF;
    END IF;

    RETURN QUERY
        SELECT u.at,
            CASE WHEN u.applied THEN v_base + sum(u.applied::integer) OVER (ORDER BY u.at) END,
            CASE WHEN NOT u.applied THEN o.revision END,
            CASE WHEN NOT u.applied THEN o.value END
        FROM unnest(p_keys, v_applied) WITH ORDINALITY u (key, applied, at)
        LEFT JOIN keelson.objects o ON NOT u.applied AND o.key = u.key
        ORDER BY u.at;
END
$$;
