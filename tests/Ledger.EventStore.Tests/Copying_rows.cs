using System.Globalization;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;

namespace Ledger.EventStore.Tests;

/// <summary>Values as binary COPY takes them: what PostgreSQL stores is what was given, to the last decimal.</summary>
public sealed class Copying_rows(PostgresFixture postgres)
{
    private const int Values = 5_000;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task keeps_every_numeric_with_its_decimals()
    {
        var random = Runs.Chance();
        decimal[] edges =
        [
            0, 0.0m, 0.00000m, 1, -1, 0.1m, 9_999, 10_000, 10_001, 99_999_999, 0.0001m, 0.00001m, 0.00010000m, 1.5m, 100_000_000, 10_000.0001m,
            ulong.MaxValue, ulong.MaxValue + 1m, decimal.MaxValue, decimal.MinValue, decimal.MaxValue / 10_000, 0.0000000000000000000000000001m,
            7.9228162514264337593543950335m, -79_228_162_514.264337593543950335m,
        ];
        decimal[] values = [.. edges, .. Enumerable.Range(0, Values).Select(_ => Any(random))];
        await using var database = NpgsqlDataSource.Create(await postgres.CreateEmptyDatabase());
        await using var connection = await database.OpenConnectionAsync(Ct);
        await using (var create = new NpgsqlCommand(
            "create table numbers (n int, value numeric, list numeric[], big bigint, small int); create index on numbers (value)", connection))
        {
            await create.ExecuteNonQueryAsync(Ct);
        }

        using var rows = new CopyRows();
        for (var i = 0; i < values.Length; i++)
        {
            rows.BeginRow(columns: 5);
            rows.Number(i);
            rows.Numeric(i % 10 == 9 ? null : values[i]);
            rows.Numerics(values.AsSpan(i, Math.Min(i % 4, values.Length - i)));
            rows.Bigint(i % 2 == 0 ? null : (long?)i);
            rows.Number(i % 2 == 0 ? (int?)i : null);
        }

        await rows.CopyTo(connection, "copy numbers (n, value, list, big, small) from stdin (format binary)", Ct);

        await using var command = new NpgsqlCommand(
            "select value::text, list::text[], value = value::text::numeric, big, small from numbers order by n", connection);
        await using var reader = await command.ExecuteReaderAsync(Ct);
        for (var i = 0; i < values.Length; i++)
        {
            Assert.True(await reader.ReadAsync(Ct), $"row {i} is missing");
            Assert.Equal(i % 10 == 9 ? null : Text(values[i]), reader.IsDBNull(0) ? null : reader.GetString(0));
            Assert.Equal(values.Skip(i).Take(i % 4).Select(Text), reader.GetFieldValue<string[]>(1));
            Assert.True(i % 10 == 9 || reader.GetBoolean(2), $"{values[i]} is stored in another way than PostgreSQL's own");
            Assert.Equal((long?)(i % 2 == 0 ? null : i), reader.IsDBNull(3) ? null : reader.GetInt64(3));
            Assert.Equal((int?)(i % 2 == 0 ? i : null), reader.IsDBNull(4) ? null : reader.GetInt32(4));
        }

        Assert.False(await reader.ReadAsync(Ct));
    }

    private static string Text(decimal value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary>Any decimal: most have few digits, with zeros among them, some have all.</summary>
    private static decimal Any(Random random)
    {
        var scale = (byte)random.Next(29);
        var negative = random.Next(2) == 0;
        return random.Next(4) switch
        {
            0 => new decimal(random.Next(), random.Next(), random.Next(), negative, scale),
            1 => new decimal(random.Next(10_000), 0, 0, negative, scale),
            2 => new decimal(random.Next(10_000) * 10_000, 0, 0, negative, scale),
            _ => new decimal(random.Next(), random.Next(), 0, negative, scale),
        };
    }
}
