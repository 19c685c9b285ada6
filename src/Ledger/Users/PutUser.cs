using System.Text.Json;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Users;

/// <summary>Registers a user, or replaces a known user's attributes.</summary>
public sealed record PutUser(IReadOnlyDictionary<string, JsonElement> Attributes)
{
    /// <summary>Attributes of one user.</summary>
    public const int MaxAttributes = 64;

    /// <summary>Characters of an attribute's name.</summary>
    public const int MaxNameLength = 64;

    /// <summary>Characters of an attribute's value, as JSON.</summary>
    public const int MaxValueLength = 1_024;

    /// <summary>Bytes of all attributes together, as JSON: well below those of an event.</summary>
    public const int MaxAttributesBytes = 32_768;

    /// <summary>Decides on the user so far; the same attributes again make no event.</summary>
    public Decision Decide(User user)
    {
        if (!user.Exists)
        {
            return Decision.Of(new UserRegistered(Attributes));
        }

        if (SameAs(user.Attributes))
        {
            return Decision.Nothing;
        }

        return Decision.Of(new UserAttributesSet(Attributes));
    }

    private bool SameAs(IReadOnlyDictionary<string, JsonElement> others) =>
        Attributes.Count == others.Count
        && Attributes.All(a => others.TryGetValue(a.Key, out var other) && JsonElement.DeepEquals(a.Value, other));

    /// <summary>The body of the request; without attributes the user just becomes known.</summary>
    public sealed record Body(IReadOnlyDictionary<string, JsonElement>? Attributes = null);

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPut("/v1/users/{userId}", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(PutUser)).WithTags("Users").WithSummary("Register a user or replace its attributes")
        .Produces<UserAnswer>(200).Produces<UserAnswer>(201).ProducesCommandProblems(412);

    private static async Task<IResult> Handle(
        string userId, Body body, HttpContext http, CommandHandler handler, UserLoader users, CancellationToken cancellation)
    {
        var command = new PutUser(body.Attributes ?? new Dictionary<string, JsonElement>());
        var errors = new Validation();
        errors.CheckUserId(userId, "userId");
        command.Check(errors);
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command(body);
        var ifMatch = http.IfMatch();
        var stream = User.StreamOf(userId);
        var registers = false;
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var (user, version) = await users.Load(context.TenantId, userId, cancellation);
                var decision = ifMatch.Allows(user.Version, user.Exists) ? command.Decide(user) : IfMatch.Failed(user.Version, user.Exists);
                registers = decision.Events is [UserRegistered];
                return new Decided(decision, stream, User.StreamType, [new StreamCondition(stream, version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        var after = await users.LoadAt(context.TenantId, userId, result.Version, cancellation);
        ETags.Write(http.Response, after.Version);
        var answer = new UserAnswer(userId, after.Attributes, after.RegisteredAt!.Value);
        registers = result.Replayed ? await users.Registered(context.TenantId, result.FirstPosition, cancellation) : registers;
        return registers ? Results.Created($"/v1/users/{PathIds.Encode(userId)}", answer) : Results.Ok(answer);
    }

    private void Check(Validation errors)
    {
        errors.Check(Attributes.Count <= MaxAttributes, "attributes", $"must be at most {MaxAttributes}");
        foreach (var (name, value) in Attributes)
        {
            var field = $"attributes.{name}";
            errors.Check(name.Length is > 0 and <= MaxNameLength, field, $"must have a name of 1 to {MaxNameLength} characters");
            errors.Check(
                value.ValueKind is JsonValueKind.String or JsonValueKind.Number or JsonValueKind.True or JsonValueKind.False,
                field, "must be a text, a number, true or false");
            errors.Check(value.GetRawText().Length <= MaxValueLength, field, $"must have at most {MaxValueLength} characters");
            CheckReserved(errors, field, name, value);
            errors.Check(value.ValueKind is not JsonValueKind.Number || Decimals.TryParse(value.GetRawText(), out _), field, Decimals.Rule);
        }

        var bytes = JsonSerializer.SerializeToUtf8Bytes(Attributes, Json.Options).Length;
        errors.Check(bytes <= MaxAttributesBytes, "attributes", $"must have at most {MaxAttributesBytes} bytes together");
    }

    /// <summary>What campaigns understand must be what it is called.</summary>
    private static void CheckReserved(Validation errors, string field, string name, JsonElement value)
    {
        var text = value.ValueKind == JsonValueKind.String ? value.GetString()! : value.ValueKind == JsonValueKind.Number ? value.GetRawText() : "";
        switch (name)
        {
            case AudienceRules.PhoneAttribute:
                errors.Check(PhoneNumber.TryParse(text, out _), field, PhoneNumber.Rule);
                break;
            case AudienceRules.TimeZoneAttribute:
                errors.Check(TimeZones.TryFind(text, out _), field, TimeZones.Rule);
                break;
            case Campaign.OptOutAttribute:
                errors.Check(value.ValueKind is JsonValueKind.True or JsonValueKind.False, field, "must be true or false");
                break;
        }
    }
}

/// <summary>Users for decisions: what the view knows and the events it does not know yet, in one snapshot.</summary>
public sealed class UserLoader(Npgsql.NpgsqlDataSource database, EventReader reader)
{
    /// <summary>A user, and the version of its stream.</summary>
    public async Task<(User User, long Version)> Load(string tenantId, string userId, CancellationToken cancellation)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var batch = new Npgsql.NpgsqlBatch(connection);
        EventReader.BeginSnapshot(batch, tenantId);
        EventReader.AddTails(batch, UsersProjection.View, [tenantId], [User.StreamOf(userId)]);
        batch.BatchCommands.Add(Sql.Command(
            "select registered_at, attributes, version from users where tenant_id = $1 and user_id = $2", Sql.Value(tenantId), Sql.Value(userId)));
        EventReader.EndSnapshot(batch);
        await using var results = await batch.Read(cancellation);
        var tail = (await reader.ReadTails(results, 1, cancellation))[0];
        await results.NextResultAsync(cancellation);
        var user = await results.ReadAsync(cancellation) ? UserRow.Read(results, 0) : User.Unknown;
        while (await results.NextResultAsync(cancellation))
        {
            // An error of a later statement shows here.
        }

        return (tail.Events.Aggregate(user, User.Evolve), tail.Version);
    }

    /// <summary>A user right after the event at a version of its stream: the user as loaded now, unless that has gone on since.</summary>
    public async Task<User> LoadAt(string tenantId, string userId, long version, CancellationToken cancellation)
    {
        var (now, current) = await Load(tenantId, userId, cancellation);
        if (current == version || now.Version <= version)
        {
            return now;
        }

        var user = User.Unknown;
        await foreach (var recorded in reader.ReadStream(new StreamKey(tenantId, User.StreamOf(userId)), toVersion: version, cancellation: cancellation))
        {
            user = User.Evolve(user, recorded);
        }

        return user with { RegisteredAt = now.RegisteredAt }; // which a call before the stream may have made
    }

    /// <summary>Whether the event at a position registered its user.</summary>
    public async Task<bool> Registered(string tenantId, long position, CancellationToken cancellation) =>
        (await reader.ReadAt(tenantId, position, cancellation))?.Data is UserRegistered;
}
