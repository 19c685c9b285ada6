using System.Text.Json;
using Ledger.Http;
using Npgsql;

namespace Ledger.Users;

/// <summary>A user.</summary>
public sealed record UserAnswer(string UserId, IReadOnlyDictionary<string, JsonElement> Attributes, DateTimeOffset RegisteredAt);

/// <summary>Answers which users there are.</summary>
public static class UserDirectory
{
    private static readonly CsvTable<UserAnswer> Csv = new(
        ["userId", "registeredAt", "attributes"],
        (csv, user) =>
        {
            csv.Text(user.UserId);
            csv.Time(user.RegisteredAt);
            csv.Text(JsonSerializer.Serialize(user.Attributes, Json.Options));
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/users/{userId}", GetOne)
            .Requires(Scopes.SegmentsRead).WithName("GetUser").WithTags("Users").WithSummary("A user with its attributes")
            .Produces<UserAnswer>().ProducesQueryProblems(404);
        routes.MapGet("/v1/users", List)
            .Requires(Scopes.SegmentsRead).WithName("ListUsers").WithTags("Users").WithSummary("All users, by id")
            .ProducesList<UserAnswer>().ProducesQueryProblems(406);
    }

    private static Task<IResult> GetOne(string userId, HttpContext http, Queries queries, UserReader users, CancellationToken cancellation) =>
        queries.Now(http, UserReader.Views, async _ =>
        {
            var errors = new Validation();
            errors.CheckUserId(userId, "userId");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var (position, user) = await users.Find(http.TenantId(), userId, cancellation);
            http.AnswerPosition(position);
            if (!user.Exists)
            {
                return Problems.Result("user-not-found", $"There is no user '{userId}'.");
            }

            ETags.Write(http.Response, user.Version);
            return Results.Ok(new UserAnswer(userId, user.Attributes, user.RegisteredAt!.Value));
        });

    private static Task<IResult> List(
        [AsParameters] PageQuery page, HttpContext http, Queries queries, UserReader users, CancellationToken cancellation) =>
        queries.Now(http, UserReader.Views, _ => ListAnswers.Answer<UserAnswer, string>(
            http, page, "users", [], Csv,
            async (after, rows) =>
            {
                var (position, found) = await users.List(http.TenantId(), after ?? "", rows, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(u => (u, u.UserId))];
            }));
}

/// <summary>Reads the view "Users".</summary>
public sealed class UserReader(ViewDatabase views)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Views = [UsersProjection.View];

    /// <summary>One user, by primary key; <see cref="User.Unknown"/> when there is none.</summary>
    public async Task<(long Position, User User)> Find(string tenantId, string userId, CancellationToken cancellation)
    {
        var user = User.Unknown;
        var position = await views.Read(
            tenantId, Views,
            [Sql.Command("select registered_at, attributes, version from users where tenant_id = $1 and user_id = $2", Sql.Value(tenantId), Sql.Value(userId))],
            async reader => user = await reader.ReadAsync(cancellation) ? UserRow.Read(reader, 0) : user,
            cancellation);
        return (position, user);
    }

    /// <summary>A page of the users, one range of the primary key.</summary>
    public async Task<(long Position, IReadOnlyList<UserAnswer> Rows)> List(string tenantId, string after, int limit, CancellationToken cancellation)
    {
        var rows = new List<UserAnswer>();
        var position = await views.Read(
            tenantId, Views,
            [
                Sql.Command(
                    "select registered_at, attributes, version, user_id from users where tenant_id = $1 and user_id > $2 order by user_id limit $3",
                    Sql.Value(tenantId), Sql.Value(after), Sql.Value(limit)),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    var user = UserRow.Read(reader, 0);
                    rows.Add(new UserAnswer(reader.GetString(3), user.Attributes, user.RegisteredAt!.Value));
                }
            },
            cancellation);
        return (position, rows);
    }
}

/// <summary>The columns registered_at, attributes, version.</summary>
internal static class UserRow
{
    public static User Read(NpgsqlDataReader reader, int first) => new(
        reader.GetFieldValue<DateTimeOffset>(first),
        JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(reader.GetFieldValue<byte[]>(first + 1))!,
        reader.GetInt64(first + 2));
}
