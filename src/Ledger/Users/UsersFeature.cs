using Ledger.EventStore;

namespace Ledger.Users;

/// <summary>Users: what is stored, what is kept, what can be called.</summary>
public static class UsersFeature
{
    /// <summary>Its events, with their stored names.</summary>
    public static readonly (Type, string)[] Events =
    [
        (typeof(UserRegistered), "user_registered"),
        (typeof(UserAttributesSet), "user_attributes_set"),
    ];

    /// <summary>
    /// Its services. Events of other features make users known, too: <paramref name="otherEventsOfUserStreams"/>, and
    /// <paramref name="otherEvents"/> of other streams, whose user <paramref name="userOf"/> tells.
    /// </summary>
    public static IServiceCollection AddUsers(
        this IServiceCollection services, IEnumerable<Type> otherEventsOfUserStreams, IEnumerable<Type> otherEvents, Func<object, string> userOf) => services
        .AddSingleton<IProjection>(_ => new UsersProjection([.. Events.Select(e => e.Item1), .. otherEventsOfUserStreams], otherEvents, userOf))
        .AddSingleton<UserLoader>()
        .AddSingleton<KnownUsers>()
        .AddSingleton<UserReader>();

    /// <summary>Its routes.</summary>
    public static void MapUsers(this IEndpointRouteBuilder routes)
    {
        PutUser.Map(routes);
        UserDirectory.Map(routes);
    }
}
