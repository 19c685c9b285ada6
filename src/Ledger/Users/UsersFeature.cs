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

    /// <summary>Its services. Events of other features in user streams make users known, too.</summary>
    public static IServiceCollection AddUsers(this IServiceCollection services, params IEnumerable<Type> otherEventsOfUserStreams) => services
        .AddSingleton<IProjection>(_ => new UsersProjection([.. Events.Select(e => e.Item1), .. otherEventsOfUserStreams]))
        .AddSingleton<UserLoader>()
        .AddSingleton<UserReader>();

    /// <summary>Its routes.</summary>
    public static void MapUsers(this IEndpointRouteBuilder routes)
    {
        PutUser.Map(routes);
        UserDirectory.Map(routes);
    }
}
