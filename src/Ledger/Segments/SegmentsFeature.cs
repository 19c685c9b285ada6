using Ledger.EventStore;

namespace Ledger.Segments;

/// <summary>Segments and memberships: what is stored, what is kept, what can be called.</summary>
public static class SegmentsFeature
{
    /// <summary>Events of user streams, with their stored names.</summary>
    public static readonly (Type, string)[] MembershipEvents =
    [
        (typeof(UserJoinedSegment), "user_joined_segment"),
        (typeof(MembershipRenewed), "membership_renewed"),
        (typeof(UserLeftSegment), "user_left_segment"),
        (typeof(MembershipExpired), "membership_expired"),
    ];

    /// <summary>Events of segment streams, with their stored names.</summary>
    public static readonly (Type, string)[] SegmentEvents =
    [
        (typeof(SegmentCreated), "segment_created"),
        (typeof(SegmentDescribed), "segment_described"),
        (typeof(DefaultTtlChanged), "default_ttl_changed"),
        (typeof(RolloutChanged), "rollout_changed"),
        (typeof(SegmentDeleted), "segment_deleted"),
    ];

    /// <summary>Its services.</summary>
    public static IServiceCollection AddSegments(this IServiceCollection services, SweepInterval sweepInterval) => services
        .AddSingleton(sweepInterval)
        .AddSingleton<IProjection, SegmentsProjection>()
        .AddSingleton<IProjection, MembershipsProjection>()
        .AddSingleton<SegmentLoader>()
        .AddSingleton<MembershipLoader>()
        .AddSingleton<MembershipCommands>()
        .AddSingleton<SegmentCatalogueReader>()
        .AddSingleton<SegmentSizesReader>()
        .AddSingleton<SizesOverTimeReader>()
        .AddSingleton<SegmentMembersReader>()
        .AddSingleton<UserSegmentsReader>()
        .AddSingleton<WhyMemberReader>()
        .AddSingleton<StaysAtDeletion>()
        .AddSingleton<StaysOfMonth>()
        .AddSingleton<LiveSegments>()
        .AddSingleton<MembersAt>()
        .AddSingleton<MembersImport>()
        .AddSingleton<ExpireMemberships>()
        .AddHostedService(services => services.GetRequiredService<ExpireMemberships>());

    /// <summary>Its routes.</summary>
    public static void MapSegments(this IEndpointRouteBuilder routes)
    {
        CreateSegment.Map(routes);
        ChangeSegment.Map(routes);
        DeleteSegment.Map(routes);
        SegmentSizes.Map(routes);
        SizesOverTime.Map(routes);
        SegmentMembers.Map(routes);
        ImportMembers.Map(routes);
        SegmentCatalogue.Map(routes);
        ChangeMemberships.Map(routes);
        JoinSegment.Map(routes);
        LeaveSegment.Map(routes);
        UserSegments.Map(routes);
        WhyMember.Map(routes);
    }
}
