"""Joins the tables of Outbrain's click log into those that log.yaml names: `python prepare.py FOLDER [MEMORY]`."""

import os
import sys

import duckdb

os.chdir(sys.argv[1])
engine = duckdb.connect(config={"memory_limit": sys.argv[2] if len(sys.argv) > 2 else "4GB"})
engine.execute("SET preserve_insertion_order = false")  # which costs memory, and the build does not need it
# Left joins: an impression without its display or document is kept, and the build counts it and says what it lacks.
engine.execute(r"""
    COPY (
        SELECT display_id, uuid, e.document_id, p.document_id AS promoted_document, timestamp, platform, geo_location,
            clicked
        FROM read_csv('clicks_train.csv') AS c
        LEFT JOIN read_csv('events.csv', nullstr = ['', '\N'],
            types = {'uuid': 'VARCHAR', 'platform': 'VARCHAR', 'geo_location': 'VARCHAR'}) AS e USING (display_id)
        LEFT JOIN read_csv('promoted_content.csv') AS p USING (ad_id)
    ) TO 'exposures.parquet'
    """)
engine.execute(r"""
    COPY (
        SELECT document_id, source_id, publisher_id, category_id
        FROM read_csv('documents_meta.csv', nullstr = ['', '\N'],
            types = {'source_id': 'BIGINT', 'publisher_id': 'BIGINT', 'publish_time': 'VARCHAR'}) AS m
        FULL JOIN (
            SELECT document_id, FIRST(category_id ORDER BY confidence_level DESC, category_id) AS category_id
            FROM read_csv('documents_categories.csv') GROUP BY document_id
        ) AS best USING (document_id)
    ) TO 'documents.parquet'
    """)
engine.close()
