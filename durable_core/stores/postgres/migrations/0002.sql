-- 2: tags, what a run waits for, what it restarts, and pages of lists. The dead column `parent` goes.

DROP INDEX runs_children;

ALTER TABLE runs DROP COLUMN parent, ADD COLUMN tags TEXT, ADD COLUMN retagged TEXT,
    ADD COLUMN awaits TEXT, ADD COLUMN restarts TEXT;

CREATE INDEX runs_named ON runs (name, created_at_ns, num);

CREATE INDEX runs_restarts ON runs (restarts) WHERE restarts IS NOT NULL;

CREATE INDEX runs_started ON runs (created_at_ns, num);

CREATE INDEX runs_undone ON runs (status, created_at_ns, num) WHERE ended_at_ns IS NOT NULL AND status <> 'completed';

CREATE INDEX runs_unwell ON runs (created_at_ns, num) WHERE reason IS NOT NULL AND ended_at_ns IS NULL;

CREATE TABLE run_tags (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    started_at_ns BIGINT NOT NULL,
    run BIGINT NOT NULL,
    PRIMARY KEY (key, value, started_at_ns, run)
);

CREATE FUNCTION tag_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND coalesce(old.retagged, old.tags) IS NOT NULL THEN
        EXECUTE format(
            'DELETE FROM %I.run_tags WHERE (key, value, started_at_ns, run) IN'
            ' (SELECT key, value, $2, $3 FROM json_each_text($1::json))', TG_TABLE_SCHEMA
        ) USING coalesce(old.retagged, old.tags), old.created_at_ns, old.num;
    END IF;
    IF TG_OP <> 'DELETE' AND coalesce(new.retagged, new.tags) IS NOT NULL THEN
        EXECUTE format(
            'INSERT INTO %I.run_tags (key, value, started_at_ns, run)'
            ' SELECT key, value, $2, $3 FROM json_each_text($1::json)', TG_TABLE_SCHEMA
        ) USING coalesce(new.retagged, new.tags), new.created_at_ns, new.num;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER runs_tag AFTER INSERT ON runs FOR EACH ROW WHEN (new.tags IS NOT NULL) EXECUTE FUNCTION tag_runs();

CREATE TRIGGER runs_tag_again AFTER UPDATE OF retagged ON runs FOR EACH ROW WHEN (new.retagged IS DISTINCT FROM old.retagged) EXECUTE FUNCTION tag_runs();

CREATE TRIGGER runs_untag AFTER DELETE ON runs FOR EACH ROW WHEN (coalesce(old.retagged, old.tags) IS NOT NULL) EXECUTE FUNCTION tag_runs();
