namespace Ledger.EventStore.Tests;

public sealed class Span_names
{
    [Theory]
    [InlineData("select e.id from mt_events e where e.id = any($1)", "select mt_events")]
    [InlineData("select s.id from unnest($1) k (id)\ncross join lateral (select * from mt_streams s limit 1) s", "select mt_streams")]
    [InlineData("insert into users (id) select * from unnest($1)", "insert users")]
    [InlineData("update mt_streams s set version = 1 from unnest($1) k (id)", "update mt_streams")]
    [InlineData("delete from unpriced_calls c using unnest($1) k (id)", "delete unpriced_calls")]
    [InlineData("with moved as (\n  update mt_event_progression set last_seq_id = $1) select count(*) from moved", "update mt_event_progression")]
    [InlineData("with k as (select 1) select * from calls", "select calls")]
    [InlineData("copy mt_events (seq_id) from stdin (format binary)", "copy mt_events")]
    [InlineData("select pg_advisory_xact_lock($1)", "select")]
    [InlineData("begin isolation level read committed", "begin")]
    [InlineData("", "statement")]
    public void say_what_is_done_to_which_table(string statement, string name) => Assert.Equal(name, SpanNames.Of(statement));

    [Fact]
    public void of_a_batch_name_its_first_statements_but_for_those_around_them()
    {
        Assert.Equal("select users, insert users", SpanNames.OfAll(["begin", "select 1 from users", "insert into users values (1)", "select 2 from users", "commit"]));
        Assert.Equal("select a, select b, select c, …", SpanNames.OfAll(["select 1 from a", "select 1 from b", "select 1 from c", "select 1 from d"]));
        Assert.Equal("batch", SpanNames.OfAll(["begin", "commit"]));
    }
}
