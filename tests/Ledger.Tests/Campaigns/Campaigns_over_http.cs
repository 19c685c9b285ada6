using System.Net;
using System.Text.Json;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Testing;
using Ledger.Tests.Running;
using Ledger.Users;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Campaigns;

public sealed class Campaigns_over_http(PostgresFixture postgres)
{
    private static string[] Of(params string[] slugs) => slugs;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>A node without a gateway: campaigns begin there, and nothing is sent.</summary>
    private Task<TestNode> Node() => Given_a_campaign.Node(postgres, null);

    [Fact]
    public async Task Plan_change_list_and_show_a_campaign()
    {
        await using var node = await Node();
        await node.Members(2);
        var answer = (await node.Post("/v1/campaigns", node.Plan(("startsAt", node.Clock.Now.AddMinutes(10)), ("ratePerSecond", 5)), ("Idempotency-Key", "k1"))).Is(HttpStatusCode.Created);
        var id = answer.Json.GetProperty("id").GetString()!;
        Assert.Equal($"/v1/campaigns/{id}", answer.Headers["Location"]);
        Assert.Equal("\"1\"", answer.ETag);
        Assert.Equal(("scheduled", 5, "retry"), (answer.Json.GetProperty("state").GetString(), answer.Json.GetProperty("ratePerSecond").GetInt32(), answer.Json.GetProperty("onUnknown").GetString()));

        var again = (await node.Post("/v1/campaigns", node.Plan(("startsAt", node.Clock.Now.AddMinutes(10)), ("ratePerSecond", 5)), ("Idempotency-Key", "k1"))).Is(HttpStatusCode.Created);
        Assert.True(again.Replayed);
        Assert.Equal(id, again.Json.GetProperty("id").GetString());
        (await node.Post("/v1/campaigns", node.Plan(), ("Idempotency-Key", "k1"))).IsProblem(422, "idempotency-key-reused");

        (await node.Patch($"/v1/campaigns/{id}", new { name = "x" }, ("If-Match", "\"7\""))).IsProblem(412, "precondition-failed");
        var changed = (await node.Patch($"/v1/campaigns/{id}", """{"name":"another","ratePerSecond":null,"window":{"from":"22:00","to":"06:00"}}""", ("If-Match", "\"1\""))).Is(HttpStatusCode.OK);
        Assert.Equal(("another", JsonValueKind.Null, "\"2\""), (changed.Json.GetProperty("name").GetString(), changed.Json.GetProperty("ratePerSecond").ValueKind, changed.ETag));
        Assert.Equal(changed.Text, (await node.Get($"/v1/campaigns/{id}")).Is(HttpStatusCode.OK).Text);

        var other = await node.Campaign(("startsAt", node.Clock.Now.AddMinutes(20)));
        Assert.Equal([other, id], (await node.Get("/v1/campaigns")).Each("id"));
        var page = await node.Get("/v1/campaigns?limit=1");
        Assert.Equal([id], (await node.Get($"/v1/campaigns?limit=1&cursor={page.Json.GetProperty("nextCursor").GetString()}")).Each("id"));
        Assert.StartsWith("id,name,state,", (await node.Get("/v1/campaigns", ("Accept", "text/csv"))).Text, StringComparison.Ordinal);
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Begin_by_themselves_when_the_time_comes_with_who_was_in_the_segments_then()
    {
        await using var node = await Node();
        await node.Members(3);
        var id = await node.Campaign(("startsAt", node.Clock.Now.AddMinutes(10)), ("endsAt", node.Clock.Now.AddHours(2)));
        await node.Put("/v1/users/late/segments/everybody", null);
        await node.User("late", new { phone = Given_a_campaign.Phone(9), name = "Late" });
        await node.CatchUp();
        node.Clock.Advance(TimeSpan.FromMinutes(10));
        var campaign = await node.Reaches(id, "running");

        Assert.Equal(4, campaign.GetProperty("recipients").GetInt64());
        Assert.Equal(4, campaign.Total("pending"));
        var position = campaign.GetProperty("position").GetInt64();
        Assert.Equal(
            (await node.Get($"/v1/segments/everybody/members?position={position}")).Each("userId"), (await node.Messages(id)).Select(m => m.GetProperty("userId").GetString()));

        // What happens afterwards does not change it.
        await node.Put("/v1/users/later/segments/everybody", null);
        await node.Delete("/v1/users/late/segments/everybody");
        await node.CatchUp();
        Assert.Equal(4, (await node.Campaign(id)).GetProperty("recipients").GetInt64());
        node.Clock.Advance(TimeSpan.FromHours(3));
        Assert.Equal(4, (await node.Reaches(id, "ended")).Total("expired"));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Take_any_all_and_none_of_segments_roll_outs_and_attributes()
    {
        await using var node = await Node();
        await node.Members(40);
        await node.Members(20, slug: "half");
        await node.Members(10, slug: "quarter");
        await node.Post("/v1/segments", new { slug = "rolled", rolloutPercent = "50" });
        await node.Post("/v1/segments", new { slug = "nobody" });
        await node.User("u0003", new { phone = "79991234567", name = "N3", tag = "vip" });
        await node.CatchUp();
        string[] all = [.. Enumerable.Range(0, 40).Select(i => Given_a_campaign.Name("u", i))];
        var rolled = new HashSet<string>();
        foreach (var user in all)
        {
            if ((await node.Get($"/v1/users/{user}/segments/rolled")).Json.GetProperty("member").GetBoolean())
            {
                rolled.Add(user);
            }
        }

        Assert.InRange(rolled.Count, 5, 35);
        await Is(new { segments = new { any = Of("half", "quarter") } }, all[..20]);
        await Is(new { segments = new { all = Of("everybody", "quarter") } }, all[..10]);
        await Is(new { segments = new { all = Of("everybody"), none = Of("half") } }, all[20..]);
        await Is(new { segments = new { any = Of("rolled") } }, [.. rolled]);
        await Is(new { segments = new { any = Of("rolled", "quarter"), none = Of("nobody") } }, [.. all.Where((u, i) => i < 10 || rolled.Contains(u))]);
        await Is(new { segments = new { all = Of("rolled", "half") } }, [.. all[..20].Where(rolled.Contains)]);
        await Is(new { segments = new { any = Of("nobody") } }, []);
        await Is(new { segments = new { none = Of("half") } }, all[20..]);
        await Is(new { attributes = new { operatorCode = "999" } }, ["u0003"]);
        await Is(new { segments = new { any = Of("everybody") }, attributes = new { operatorCode = "921", tag = "vip" } }, []);
        Assert.Empty(node.Errors);

        async Task Is(object audience, string[] expected)
        {
            var id = await node.Campaign(("audience", audience));
            var campaign = await node.Reaches(id, "running", "completed");
            Assert.Equal(expected.Order(StringComparer.Ordinal), (await node.Messages(id)).Select(m => m.GetProperty("userId").GetString()));
            Assert.Equal(expected.Length, campaign.GetProperty("recipients").GetInt64());
        }
    }

    [Fact]
    public async Task Send_nothing_where_the_text_needs_what_a_recipient_lacks()
    {
        await using var node = await Node();
        await node.Members(5);
        await node.User("u0002", new { phone = Given_a_campaign.Phone(2) });
        await node.CatchUp();
        var campaign = await node.Reaches(await node.Campaign(), "invalid");

        Assert.Contains("such as name", campaign.GetProperty("error").GetString()!, StringComparison.Ordinal);
        Assert.Equal(["u0002"], campaign.GetProperty("errorUsers").EnumerateArray().Select(u => u.GetString()));
        Assert.Equal(0, campaign.Total("pending") + campaign.Total("sent"));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Say_of_whom_nothing_can_be_sent_to_why()
    {
        await using var node = await Node();
        await node.Members(2);
        await node.User("u0003", new { name = "no phone" });
        await node.Put("/v1/users/u0003/segments/everybody", null);
        await node.CatchUp();
        var id = await node.Campaign(("text", "Hello!"));
        var campaign = await node.Reaches(id, "running");

        Assert.Equal((2, 1), (campaign.Total("pending"), campaign.Total("failed")));
        Assert.Equal("The user has no attribute phone.", Assert.Single(await node.Messages(id, "failed")).GetProperty("error").GetString());
        (await node.Post($"/v1/campaigns/{id}/retry-failed", null)).Is(HttpStatusCode.OK); // it can't be tried, and nobody waits for it
        await node.CatchUp();
        Assert.Equal(1, (await node.Campaign(id)).Total("failed"));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Refuse_what_is_none_and_name_the_field()
    {
        await using var node = await Node();
        await node.Members(1);
        await Refused("name", ("name", ""));
        await Refused("name", ("name", new string('n', Ledger.Campaigns.Campaign.MaxNameLength + 1)));
        await Refused("text", ("text", "Hello {name"));
        await Refused("endsAt", ("endsAt", node.Clock.Now));
        await Refused("endsAt", ("startsAt", node.Clock.Now.AddHours(2)));
        await Refused("endsAt", ("endsAt", node.Clock.Now + Ledger.Campaigns.Campaign.MaxDuration + TimeSpan.FromMicroseconds(1)));
        await Refused("audience", ("audience", new { }));
        await Refused("audience.segments.any[0]", ("audience", new { segments = new { any = Of("no slug") } }));
        await Refused("audience.segments.none[0]", ("audience", new { segments = new { any = Of("everybody"), none = Of("everybody") } }));
        await Refused("audience.segments", ("audience", new { segments = new { any = Enumerable.Range(0, Ledger.Campaigns.Campaign.MaxSegments + 1).Select(i => $"s{i}") } }));
        await Refused("audience.attributes.tag", ("audience", new { attributes = new { tag = Of("vip") } }));
        await Refused("audience.attributes.tag", ("audience", new { attributes = new { tag = new string('v', PutUser.MaxValueLength - 1) } }));
        await Refused("audience.attributes.tag", ("audience", new { attributes = new { tag = new string('v', 70_000) } }));
        await Refused("audience.attributes.", ("audience", new { attributes = new Dictionary<string, string> { [""] = "vip" } }));
        var name = new string('n', PutUser.MaxNameLength + 1);
        await Refused($"audience.attributes.{name}", ("audience", new { attributes = new Dictionary<string, string> { [name] = "vip" } }));
        await Refused("window.from", ("window", new { from = "9:00", to = "21:00" }));
        await Refused("window.to", ("window", new { from = "09:00", to = "09:00" }));
        await Refused("ratePerSecond", ("ratePerSecond", 0));
        await Refused("onUnknown", ("onUnknown", "RETRY"));
        (await node.Post("/v1/campaigns", node.Plan(("unknown", 1)))).IsProblem(400, "unknown-field");
        (await node.Post("/v1/campaigns", node.Plan(("audience", new { segments = new { any = Of("none-such") } })))).IsProblem(404, "segment-not-found");
        Assert.Empty((await node.Get("/v1/campaigns")).Items);
        foreach (var id in (string[])["none-such", $"{Guid.NewGuid():N}", $"{Guid.NewGuid():D}"])
        {
            (await node.Get($"/v1/campaigns/{id}")).IsProblem(404, "campaign-not-found");
            (await node.Get($"/v1/campaigns/{id}/messages")).IsProblem(404, "campaign-not-found");
            (await node.Patch($"/v1/campaigns/{id}", new { name = "x" })).IsProblem(404, "campaign-not-found");
            foreach (var verb in (string[])["pause", "resume", "cancel", "retry-failed"])
            {
                (await node.Post($"/v1/campaigns/{id}/{verb}", null)).IsProblem(404, "campaign-not-found");
            }
        }

        var known = await node.Campaign();
        (await node.Get($"/v1/campaigns/{known}/messages?status=lost")).IsProblem(400, "invalid-request");
        (await node.Get("/v1/campaigns/stats?from=2026-11-20T12:20:00Z")).IsProblem(400, "invalid-request");
        (await node.Get("/v1/campaigns/stats?from=2026-11-20T12:00:00Z&to=2026-11-20T12:00:00Z")).IsProblem(400, "invalid-request");
        Assert.Empty(node.Errors);

        async Task Refused(string field, params (string, object?)[] changes)
        {
            var answer = await node.Post("/v1/campaigns", node.Plan(changes));
            Assert.Equal(400, (int)answer.Status);
            Assert.Contains(field, answer.Fields);
        }
    }

    [Theory]
    [InlineData("phone", "\"112\"")]
    [InlineData("phone", "true")]
    [InlineData("timeZone", "\"Mars/Olympus\"")]
    [InlineData("timeZone", "3")]
    [InlineData("optedOut", "\"yes\"")]
    public async Task Let_no_user_have_what_they_could_not_use(string attribute, string value)
    {
        await using var node = await Node();
        var answer = (await node.Put("/v1/users/u1", $$$"""{"attributes":{"{{{attribute}}}":{{{value}}}}}""")).IsProblem(400, "invalid-request");
        Assert.Equal([$"attributes.{attribute}"], answer.Fields);
    }

    [Fact]
    public async Task Are_counted_by_the_time_they_had()
    {
        await using var gateway = await GatewayProcess.Start(new { refusePercent = 20 });
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await node.Members(60);
        var first = await node.Reaches(await node.Campaign(), "completed");
        node.Clock.Advance(TimeSpan.FromDays(3));
        var second = await node.Campaign();
        await node.Reaches(second, "completed");

        var now = (await node.Get("/v1/campaigns/stats?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z")).Is(HttpStatusCode.OK).Json;
        Assert.Equal([second], now.GetProperty("items").EnumerateArray().Select(i => i.GetProperty("id").GetString()));
        var all = (await node.Get("/v1/campaigns/stats?from=2026-11-20T00:00:00Z&to=2026-11-24T00:00:00Z")).Is(HttpStatusCode.OK).Json;
        Assert.Equal((2, 120), (all.GetProperty("campaigns").GetInt64(), all.GetProperty("recipients").GetInt64()));
        Given_a_campaign.AssertBalanced(all);
        Assert.Equal(all.Total("sent"), all.GetProperty("outcomes").GetProperty("sent").GetInt64());
        Assert.Equal(all.Total("failed"), all.GetProperty("outcomes").GetProperty("failed").GetInt64());
        Assert.Equal(first.Total("sent") + (await node.Campaign(second)).Total("sent"), all.Total("sent"));
        Assert.Empty((await node.Get("/v1/campaigns/stats?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z")).Items);
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Go_on_with_an_audience_where_a_node_stopped()
    {
        await using var node = await Node();
        await node.Members(30);
        var id = await node.Campaign(("startsAt", node.Clock.Now.AddMinutes(1)));
        var campaign = Guid.ParseExact(id, "N");
        node.Clock.Advance(TimeSpan.FromMinutes(2));

        // What another node has recorded before it died: that it begins, and a first part.
        var first = Enumerable.Range(0, 10).Select(i => new Recipient(Given_a_campaign.Name("u", i), "+79210000001", null, new Dictionary<string, string> { ["name"] = "of the other node" }));
        var appended = await node.Services.GetRequiredService<Appender>().Append(
            new AppendRequest
            {
                TenantId = Requests.DefaultTenant,
                Appends =
                [
                    new StreamAppend(Ledger.Campaigns.Campaign.StreamOf(campaign), Ledger.Campaigns.Campaign.StreamType, [new CampaignStarted(node.Position)]),
                    new StreamAppend(Message.StreamOf(campaign, node.Clock.Now), Message.StreamType, [new RecipientsPinned(id, 0, [.. first])]),
                ],
                Identities = [new EventIdentity(Guid.CreateVersion7(), "start"), new EventIdentity(Message.PartId(Requests.DefaultTenant, campaign, 0), "part")],
                Conditions = [new StreamCondition(Ledger.Campaigns.Campaign.StreamOf(campaign), 1)],
            },
            Cancellation);
        Assert.Equal(AppendOutcome.Appended, appended.Outcome);
        await node.Reaches(id, "running");

        var parts = (await node.Log()).Select(e => e.Data).OfType<RecipientsPinned>().ToArray();
        Assert.Equal(30, parts.Sum(p => p.Recipients.Count));
        Assert.Equal(Enumerable.Range(0, parts.Length), parts.Select(p => p.Part));
        Assert.Equal(30, parts.SelectMany(p => p.Recipients).Select(r => r.UserId).Distinct().Count());
        Assert.Equal(30, (await node.Campaign(id)).Total("pending"));
        Assert.Empty(node.Errors);
    }

    [Theory]
    [InlineData("a", 60, 999, 2)]
    [InlineData("😀", 124, 100, 4)] // which is twelve bytes of JSON
    public async Task Try_again_what_failed_in_parts_that_an_event_has_room_for(string letter, int letters, int users, int parts)
    {
        await using var node = await Node();
        await node.Members(1);
        var id = await node.Campaign(("startsAt", node.Clock.Now.AddMinutes(1)));
        string[] ids = [.. Enumerable.Range(0, users).Select(i => Given_a_campaign.Name(string.Concat(Enumerable.Repeat(letter, letters)), i))];
        await node.Began(id, ids, user => new MessageFailed(id, user, "m", 1, "so", 400));
        (await node.Post($"/v1/campaigns/{id}/retry-failed", null)).Is(HttpStatusCode.OK);
        await node.Comes(id, c => c.Total("pending") == users, "all wait again");

        var requeued = (await node.Log()).Select(e => e.Data).OfType<MessagesRequeued>().ToArray();
        Assert.Equal(ids, requeued.SelectMany(r => r.Users));
        Assert.Equal(Enumerable.Range(0, parts), requeued.Select(r => r.Part));
        Assert.Equal([.. Enumerable.Repeat(false, parts - 1), true], requeued.Select(r => r.IsLast));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Wait_for_none_that_fails_again_and_again()
    {
        await using var node = await Node();
        await node.Members(3);

        // No event has room for a user with such an id, whom no request can have named.
        await using (var command = node.Services.GetRequiredService<AllTenantsDatabase>().Source.CreateCommand(
            $$"""insert into users select '{{Requests.DefaultTenant}}', repeat('u', 70000), '2026-01-01', '{"broken": true}', 1"""))
        {
            await command.ExecuteNonQueryAsync(Cancellation);
        }

        var broken = await node.Campaign(("text", "Hello!"), ("audience", new { attributes = new { broken = true } }), ("endsAt", node.Clock.Now.AddMinutes(30)));
        await Patience.Until(() => Task.FromResult(node.Errors.Count > 0), "it fails");
        string[] others = [await node.Campaign(), await node.Campaign(), await node.Campaign()];
        foreach (var other in others)
        {
            Assert.Equal(3, (await node.Reaches(other, "running")).Total("pending"));
        }

        Assert.Equal("starting", (await node.Campaign(broken)).GetProperty("state").GetString());
        Assert.All(node.Errors, e => Assert.Contains("An event holds at most", e, StringComparison.Ordinal));
    }

    [Fact]
    public async Task End_where_what_is_left_was_to_be_sent_again()
    {
        await using var node = await Node();
        await node.Members(1);
        var id = await node.Campaign(("startsAt", node.Clock.Now.AddMinutes(1)));
        await node.Began(id, ["u0000"], user => new MessageOutcomeUnknown(id, user, "m", 1, "so", null, node.Clock.Now.AddMinutes(5)));
        await node.CatchUp();
        Assert.Equal("running", (await node.Campaign(id)).GetProperty("state").GetString());
        node.Clock.Advance(TimeSpan.FromHours(1));
        var campaign = await node.Reaches(id, "completed", "ended");

        Assert.Equal(("ended", 1), (campaign.GetProperty("state").GetString(), campaign.Total("unknown")));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Fit_into_an_event_with_all_they_have_at_its_limit()
    {
        await using var node = await Node();
        string[] slugs = [.. Enumerable.Range(0, Ledger.Campaigns.Campaign.MaxSegments).Select(i => Given_a_campaign.Name("s", i).PadRight(Slug.MaxChars, 's'))];
        await Task.WhenAll(slugs.Select(async slug => (await node.Post("/v1/segments", new { slug })).Is(HttpStatusCode.Created)));
        var most = Plan(Ledger.Campaigns.Campaign.MaxAttributesBytes);
        (await node.Post("/v1/campaigns", most)).Is(HttpStatusCode.Created);
        var other = await node.Campaign(("audience", new { segments = new { any = slugs } }), ("startsAt", node.Clock.Now.AddMinutes(1)));
        (await node.Patch($"/v1/campaigns/{other}", most)).Is(HttpStatusCode.OK);

        var plans = (await node.Log()).Select(e => e.Data).Where(e => e is CampaignChanged or CampaignCreated { Plan.Text.Length: > 1_000 }).ToArray();
        Assert.Equal(2, plans.Length);
        Assert.All(plans, p => Assert.InRange(JsonSerializer.SerializeToUtf8Bytes(p, LedgerEvents.JsonOptions).Length, 60_000, EventStoreOptions.MaxEventBytes));
        var more = Plan(Ledger.Campaigns.Campaign.MaxAttributesBytes + 1);
        Assert.Equal(["audience.attributes"], (await node.Post("/v1/campaigns", more)).IsProblem(400, "invalid-request").Fields);
        Assert.Equal(["audience.attributes"], (await node.Patch($"/v1/campaigns/{other}", more)).IsProblem(400, "invalid-request").Fields);
        Assert.Empty(node.Errors);

        Dictionary<string, object?> Plan(int attributesBytes)
        {
            const string Wide = "😀"; // two characters of .NET and one of Unicode, twelve bytes of JSON
            var attributes = new Dictionary<string, string>();
            while (JsonSerializer.SerializeToUtf8Bytes(attributes).Length < attributesBytes - PutUser.MaxValueLength - 20)
            {
                attributes[$"a{attributes.Count}"] = new string('x', PutUser.MaxValueLength - 2);
            }

            attributes["z"] = "";
            attributes["z"] = new string('x', attributesBytes - JsonSerializer.SerializeToUtf8Bytes(attributes).Length);
            return node.Plan(
                ("name", string.Concat(Enumerable.Repeat(Wide, Ledger.Campaigns.Campaign.MaxNameLength / 2))),
                ("text", string.Concat(Enumerable.Repeat(Wide, MessageText.MaxCharacters))), ("audience", new { segments = new { any = slugs }, attributes }),
                ("startsAt", node.Clock.Now.AddMinutes(1).AddMicroseconds(1)), ("endsAt", node.Clock.Now.AddDays(300).AddMicroseconds(1)),
                ("window", new { from = "09:00", to = "21:00" }), ("ratePerSecond", Ledger.Campaigns.Campaign.MaxRatePerSecond), ("onUnknown", "retry"));
        }
    }
}
