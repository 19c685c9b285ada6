using System.Runtime.CompilerServices;
using Ledger.Segments;
using Ledger.Users;

namespace Ledger.Campaigns;

/// <summary>Some of an audience, by user id; <paramref name="Lacking"/> are users for whom the text can't be filled in, with what they lack.</summary>
internal sealed record AudiencePage(IReadOnlyList<Recipient> Recipients, IReadOnlyList<(string UserId, IReadOnlyList<string> Attributes)> Lacking);

/// <summary>An audience that there can't be.</summary>
public sealed class InvalidAudienceException(string reason) : Exception(reason);

/// <summary>
/// Finds who is in an audience: who was in its segments at an instant, as far as was known at a position, by stays and roll-outs,
/// with attributes as they are now. It goes through one segment's stays, or through all users where only a rule says who is in,
/// page by page in order of user id, so neither memory nor a transaction grows with the audience.
/// </summary>
public sealed class AudienceFinder(MembersAt members, KnownUsers users)
{
    /// <summary>Users looked at in one go.</summary>
    public const int PageUsers = 5_000;

    /// <summary>The recipients after a user id, in pages; a page may have none.</summary>
    /// <exception cref="InvalidAudienceException">A segment that somebody must be in is not there.</exception>
    internal async IAsyncEnumerable<AudiencePage> Pages(
        string tenantId, CampaignPlan plan, AsOf asOf, string after, [EnumeratorCancellation] CancellationToken cancellation)
    {
        if (!MessageText.TryParse(plan.Text, out var text, out var wrong))
        {
            throw new InvalidAudienceException($"The text {wrong}.");
        }

        var named = plan.Audience.Segments ?? new AudienceSegments();
        var segments = (await members.Segments(tenantId, [.. named.Slugs.Append(Campaign.SuppressionSegment).Distinct()], asOf, cancellation)).ToDictionary(s => s.Slug);
        var (any, all) = (Needed(named.Any), Needed(named.All));
        var none = (named.None ?? []).Where(segments.ContainsKey).Select(s => segments[s]).ToArray();
        var suppression = segments.GetValueOrDefault(Campaign.SuppressionSegment);
        var listed = all.Where(s => s.Percent == 0).Take(1).ToArray() is { Length: > 0 } one ? one
            : any.Length > 0 && any.All(s => s.Percent == 0) ? any
            : [];
        while (true)
        {
            IReadOnlyList<KnownUser>? known = null;
            IReadOnlyList<string> ids;
            if (listed.Length > 0)
            {
                ids = await members.Next(tenantId, listed, asOf, after, PageUsers, cancellation);
            }
            else
            {
                known = await users.Next(tenantId, asOf.At, after, PageUsers, cancellation);
                ids = [.. known.Select(u => u.Id)];
            }

            if (ids.Count == 0)
            {
                yield break;
            }

            after = ids[^1];
            var isLast = ids.Count < PageUsers;
            foreach (var segment in all.Where(s => listed is not [var only] || only != s))
            {
                var inside = await members.Among(tenantId, segment, ids, asOf, cancellation);
                ids = [.. ids.Where(inside.Contains)];
            }

            if (any.Length > 0 && !ReferenceEquals(listed, any))
            {
                var inside = new HashSet<string>(StringComparer.Ordinal);
                foreach (var segment in any)
                {
                    inside.UnionWith(await members.Among(tenantId, segment, [.. ids.Where(i => !inside.Contains(i))], asOf, cancellation));
                }

                ids = [.. ids.Where(inside.Contains)];
            }

            foreach (var segment in none)
            {
                var inside = await members.Among(tenantId, segment, ids, asOf, cancellation);
                ids = [.. ids.Where(i => !inside.Contains(i))];
            }

            var suppressed = suppression is null ? new HashSet<string>() : await members.Among(tenantId, suppression, ids, asOf, cancellation);
            var byId = (known ?? await users.Of(tenantId, ids, cancellation)).ToDictionary(u => u.Id, StringComparer.Ordinal);
            var (recipients, lacking) = (new List<Recipient>(ids.Count), new List<(string, IReadOnlyList<string>)>());
            foreach (var user in ids.Select(i => byId.GetValueOrDefault(i)).OfType<KnownUser>().Where(u => AudienceRules.Matches(u, plan.Audience)))
            {
                recipients.Add(AudienceRules.RecipientOf(user, plan, text, suppressed.Contains(user.Id), out var missing));
                if (missing.Count > 0)
                {
                    lacking.Add((user.Id, missing));
                }
            }

            yield return new AudiencePage(recipients, lacking);
            if (isLast)
            {
                yield break;
            }
        }

        SegmentAt[] Needed(IReadOnlyList<string>? slugs) =>
        [
            .. (slugs ?? []).Select(s => segments.GetValueOrDefault(s) ?? throw new InvalidAudienceException($"There is no segment '{s}' any more.")),
        ];
    }
}
