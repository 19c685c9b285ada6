using System.Runtime.CompilerServices;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;

namespace Ledger.EventStore.Tests.Schema;

public sealed class The_schema(PostgresFixture postgres)
{
    /// <summary>
    /// Marten 9: string identity, conjoined tenancy, all metadata columns. Name, type, nullability, and the default where the
    /// contract names one; Marten drops what it does not know and refuses what is missing.
    /// </summary>
    private static readonly Dictionary<string, string[]> MartensColumns = new()
    {
        ["mt_streams"] =
        [
            "tenant_id varchar not null default '*DEFAULT*'", "id varchar not null", "type varchar", "version bigint",
            "timestamp timestamptz not null default now()", "created timestamptz not null default now()", "is_archived boolean default false",
        ],
        ["mt_events"] =
        [
            "seq_id bigint not null", "id uuid not null", "stream_id varchar", "version bigint not null", "data jsonb not null", "bdata bytea",
            "type varchar(500) not null", "timestamp timestamptz not null default now()", "tenant_id varchar default '*DEFAULT*'",
            "mt_dotnet_type varchar", "correlation_id varchar", "causation_id varchar", "headers jsonb", "user_name varchar",
            "is_archived boolean default false",
        ],
        ["mt_event_progression"] = ["name varchar not null", "last_seq_id bigint", "last_updated timestamptz default transaction_timestamp()"],
        ["mt_high_water_skips"] =
        [
            "ending_sequence bigint not null", "starting_sequence bigint not null", "timestamp timestamptz default transaction_timestamp()",
        ],
        ["mt_doc_deadletterevent"] =
        [
            "id uuid not null", "data jsonb not null", "mt_last_modified timestamptz default transaction_timestamp()",
            "mt_version uuid not null default (md5(((random())::text || (clock_timestamp())::text)))::uuid", "mt_dotnet_type varchar",
        ],
    };

    /// <summary>Every constraint and index on Marten's tables, but for the foreign key (docs/adr/0009): one more would be dropped by a Marten program.</summary>
    private static readonly string[] MartensKeys =
    [
        "mt_doc_deadletterevent pkey_mt_doc_deadletterevent_id primary key (id)",
        "mt_event_progression pk_mt_event_progression primary key (name)",
        "mt_events idx_mt_events_event_id unique using btree (id)",
        "mt_events pk_mt_events_stream_and_version unique using btree (tenant_id, stream_id, version)",
        "mt_events pkey_mt_events_seq_id primary key (seq_id)",
        "mt_high_water_skips pkey_mt_high_water_skips_ending_sequence primary key (ending_sequence)",
        "mt_streams pkey_mt_streams_tenant_id_id primary key (tenant_id, id)",
    ];

    [Fact]
    public async Task gives_Marten_its_columns_and_no_others()
    {
        await using var store = await TestStore.Create(postgres);

        foreach (var (table, columns) in MartensColumns)
        {
            Assert.Equal(columns.Order(), (await Columns(store, table)).Order());
        }

        Assert.Equal(
            MartensColumns.Keys.Order(),
            (await store.Lines("select relname from pg_class where relnamespace = 'ledger'::regnamespace and relkind = 'r' and relname like 'mt\\_%'"))
            .Select(l => l.Trim('(', ')')).Order());
    }

    [Fact]
    public async Task gives_Marten_its_keys_and_no_others()
    {
        await using var store = await TestStore.Create(postgres);

        Assert.Equal(MartensKeys, (await Keys(store)).Where(k => k.StartsWith("mt_", StringComparison.Ordinal)).ToArray());
    }

    [Fact]
    public async Task gives_Marten_its_sequence()
    {
        await using var store = await TestStore.Create(postgres);

        Assert.Equal(["(bigint,1,1,1,f,mt_events,seq_id)"], await store.Lines(
            """
            select s.data_type::text, s.start_value, s.increment_by, s.cache_size, s.cycle, c.relname, a.attname
            from pg_sequences s join pg_depend d on d.objid = 'ledger.mt_events_sequence'::regclass and d.deptype = 'a'
            join pg_class c on c.oid = d.refobjid join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
            where s.sequencename = 'mt_events_sequence'
            """));
    }

    /// <summary>Others rely on the tables: a change shows here before it shows to them.</summary>
    [Fact]
    public async Task is_as_it_was_last_accepted()
    {
        await using var store = await TestStore.Create(postgres);
        var tables = await store.Lines(
            """
            select relname, array_to_string(reloptions, ',') from pg_class
            where relnamespace = 'ledger'::regnamespace and relkind = 'r' and relname not like 'ledger\_test\_%' order by 1
            """);
        var keys = await Keys(store);
        var ddl = new System.Text.StringBuilder("-- The event store's tables, as PostgreSQL's catalogs tell. Renew with LEDGER_TEST_ACCEPT=1.\n");
        foreach (var table in tables.Select(t => t.Trim('(', ')').Split(',', 2)))
        {
            ddl.Append('\n').Append(table[0]).Append(table[1].Length > 0 ? $" with ({table[1].Trim('"')})" : "").Append('\n');
            (await Columns(store, table[0])).ForEach(column => ddl.Append("  ").Append(column).Append('\n'));
            keys.Where(k => k.StartsWith(table[0] + " ", StringComparison.Ordinal)).ToList()
                .ForEach(key => ddl.Append("  ").Append(key[(table[0].Length + 1)..]).Append('\n'));
        }

        var file = Path.Combine(Path.GetDirectoryName(ThisFile())!, "event-store.ddl");
        if (Environment.GetEnvironmentVariable("LEDGER_TEST_ACCEPT") == "1")
        {
            await File.WriteAllTextAsync(file, ddl.ToString(), TestContext.Current.CancellationToken);
        }

        Assert.True(
            File.Exists(file) && await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken) == ddl.ToString(),
            $"The schema is not the one in {Path.GetFileName(file)}. If the change is meant, run this test with LEDGER_TEST_ACCEPT=1 and check the file in. It is now:\n{ddl}");
    }

    private static string ThisFile([CallerFilePath] string path = "") => path;

    private static async Task<List<string>> Columns(TestStore store, string table)
    {
        await using var command = store.Database.CreateCommand(
            $"""
             select a.attname || ' ' || replace(replace(format_type(a.atttypid, a.atttypmod), 'character varying', 'varchar'), 'timestamp with time zone', 'timestamptz')
               || case when a.attnotnull then ' not null' else '' end
               || coalesce(' default ' || replace(replace(pg_get_expr(d.adbin, d.adrelid), '::character varying', ''), 'CURRENT_TIMESTAMP', 'now()'), '')
             from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             where a.attrelid = 'ledger.{table}'::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum
             """);
        await using var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        var columns = new List<string>();
        while (await reader.ReadAsync(TestContext.Current.CancellationToken))
        {
            columns.Add(reader.GetString(0));
        }

        return columns;
    }

    private static async Task<List<string>> Keys(TestStore store)
    {
        await using var command = store.Database.CreateCommand(
            """
            select c.conrelid::regclass || ' ' || c.conname || ' ' || pg_get_constraintdef(c.oid) as key
            from pg_constraint c where c.connamespace = 'ledger'::regnamespace
            union all
            select t.relname || ' ' || x.relname || case when i.indisunique then ' unique using' else ' index using' end
              || substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' USING ') + 6)
            from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class t on t.oid = i.indrelid
            where x.relnamespace = 'ledger'::regnamespace and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.conrelid = i.indrelid)
            order by 1
            """);
        await using var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        var keys = new List<string>();
        while (await reader.ReadAsync(TestContext.Current.CancellationToken))
        {
            keys.Add(reader.GetString(0).Replace("PRIMARY KEY", "primary key", StringComparison.Ordinal)
                .Replace("FOREIGN KEY", "foreign key", StringComparison.Ordinal).Replace("REFERENCES", "references", StringComparison.Ordinal));
        }

        keys.Sort(StringComparer.Ordinal);
        return keys;
    }
}
