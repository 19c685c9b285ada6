using System.Collections.Immutable;
using Ledger.Segments;

namespace Ledger.Tests.Segments;

/// <summary>
/// What segments and memberships are, told once more in the simplest way: immutable lists of lives and stays, and every
/// question answered by looking at all of them. It shares no code with the service but the bucket of a roll-out.
/// </summary>
internal sealed record Model
{
    public sealed record Life(
        string Slug, DateTimeOffset CreatedAt, DateTimeOffset? DeletedAt, TimeSpan? DefaultTtl, ImmutableList<(DateTimeOffset At, decimal Percent)> Rollouts)
    {
        public bool IsLiveAt(DateTimeOffset at) => CreatedAt <= at && (DeletedAt is null || at < DeletedAt);

        public decimal PercentAt(DateTimeOffset at) => Rollouts.Last(r => r.At <= at).Percent;

        public bool TakesIn(string user, DateTimeOffset at) => Rollout.BucketOf(Slug, user) < PercentAt(at) * 100;

        public DateTimeOffset TakesInSince(string user, DateTimeOffset at)
        {
            DateTimeOffset? since = null;
            foreach (var (changedAt, percent) in Rollouts.Where(r => r.At <= at))
            {
                since = Rollout.BucketOf(Slug, user) < percent * 100 ? since ?? changedAt : null;
            }

            return since!.Value;
        }
    }

    public sealed record Stay(
        string User, int Life, string Source, DateTimeOffset JoinedAt, DateTimeOffset? LeftAt, ImmutableList<(DateTimeOffset Since, DateTimeOffset? ExpiresAt)> Terms)
    {
        public DateTimeOffset? ExpiresAt(DateTimeOffset at) => Terms.Last(t => t.Since <= at).ExpiresAt;

        public bool HoldsAt(DateTimeOffset at) => JoinedAt <= at && (LeftAt is null || at < LeftAt) && (ExpiresAt(at) is null || at < ExpiresAt(at));
    }

    public ImmutableList<Life> Lives { get; init; } = [];

    public ImmutableList<Stay> Stays { get; init; } = [];

    public int? LiveOf(string slug) => Lives.FindLastIndex(l => l.Slug == slug && l.DeletedAt is null) is >= 0 and var index ? index : null;

    public Model Create(string slug, decimal percent, TimeSpan? defaultTtl, DateTimeOffset now) =>
        this with { Lives = Lives.Add(new Life(slug, now, null, defaultTtl, [(now, percent)])) };

    public Model Change(string slug, Func<Life, Life> change) =>
        LiveOf(slug) is { } life && change(Lives[life]) is var changed && changed != Lives[life] ? this with { Lives = Lives.SetItem(life, changed) } : this;

    public (Model Model, string Outcome) Join(string user, string slug, Term term, string source, DateTimeOffset now)
    {
        var life = LiveOf(slug)!.Value;
        var index = Stays.FindLastIndex(s => s.User == user && s.Life == life && s.HoldsAt(now));
        if (index >= 0)
        {
            var stay = Stays[index];
            return !term.Said || (term.Ttl is null && term.ExpiresAt == stay.ExpiresAt(now))
                ? (this, "already")
                : (this with { Stays = Stays.SetItem(index, stay with { Terms = stay.Terms.Add((now, End(term))) }) }, "renewed");
        }

        var first = term.Said ? End(term) : now + Lives[life].DefaultTtl;
        return (this with { Stays = Stays.Add(new Stay(user, life, source, now, null, [(now, first)])) }, "joined");

        DateTimeOffset? End(Term said) => said.Ttl is { } ttl ? now + ttl : said.ExpiresAt;
    }

    public Model Leave(string user, string slug, DateTimeOffset now)
    {
        var life = LiveOf(slug)!.Value;
        var index = Stays.FindLastIndex(s => s.User == user && s.Life == life && s.HoldsAt(now));
        return index < 0 ? this : this with { Stays = Stays.SetItem(index, Stays[index] with { LeftAt = now }) };
    }

    public IEnumerable<string> SegmentsOf(string user, DateTimeOffset at) => Lives
        .Select((life, index) => (Life: life, Stay: Stays.LastOrDefault(s => s.User == user && s.Life == index && s.HoldsAt(at))))
        .Where(l => l.Life.IsLiveAt(at) && (l.Stay is not null || l.Life.TakesIn(user, at)))
        .OrderBy(l => l.Life.Slug, StringComparer.Ordinal)
        .Select(l => l.Stay is { } stay
            ? $"{l.Life.Slug} {stay.Source} {stay.JoinedAt:O} {stay.ExpiresAt(at):O}"
            : $"{l.Life.Slug} rollout {l.Life.TakesInSince(user, at):O} ");

    public IEnumerable<string>? MembersOf(string slug, DateTimeOffset at) =>
        Lives.FindLastIndex(l => l.Slug == slug && l.IsLiveAt(at)) is >= 0 and var life
            ? Stays.Where(s => s.Life == life && s.HoldsAt(at)).OrderBy(s => s.User, StringComparer.Ordinal).Select(s => $"{s.User} {s.Source} {s.JoinedAt:O} {s.ExpiresAt(at):O}")
            : null;

    public IEnumerable<string> Counts(DateTimeOffset at) => Lives
        .Select((life, index) => (Life: life, Members: Stays.Count(s => s.Life == index && s.HoldsAt(at))))
        .Where(l => l.Life.IsLiveAt(at)).OrderBy(l => l.Life.Slug, StringComparer.Ordinal).Select(l => $"{l.Life.Slug} {l.Members}");

    public string? Why(string user, string slug, DateTimeOffset at)
    {
        var index = Lives.FindLastIndex(l => l.Slug == slug && l.CreatedAt <= at);
        if (index < 0)
        {
            return null;
        }

        var life = Lives[index];
        var stay = Stays.LastOrDefault(s => s.User == user && s.Life == index && s.JoinedAt <= at);
        var expiresAt = stay?.ExpiresAt(at);
        var live = life.IsLiveAt(at);
        var holds = live && stay is not null && stay.HoldsAt(at);
        var rolledOut = live && life.TakesIn(user, at);
        var left = stay?.LeftAt <= at ? stay!.LeftAt : null;
        if (rolledOut && !holds)
        {
            return $"True rollout {life.TakesInSince(user, at):O}  ";
        }

        var reason = !live ? "segment-deleted" : holds ? stay!.Source : stay is null ? "never-joined" : left is not null ? "left" : "expired";
        var ended = holds || stay is null ? null : new[] { left, expiresAt <= at ? expiresAt : null, live ? null : life.DeletedAt }.Min();
        return $"{holds} {reason} {stay?.JoinedAt:O} {expiresAt:O} {ended:O}";
    }
}
