using System.Collections.Frozen;
using System.Runtime.CompilerServices;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.Routing.Patterns;

namespace Ledger.Http;

/// <summary>
/// Refuses a query parameter that the endpoint does not have, as an unknown field of a body is refused: a filter that was
/// misspelt must not answer with everything. None may be given twice, in whichever case.
/// </summary>
internal static class KnownParameters
{
    private static readonly ConditionalWeakTable<Endpoint, FrozenSet<string>> Known = [];

    /// <summary>Checks the query once the endpoint is known.</summary>
    public static Task Check(HttpContext context, RequestDelegate next)
    {
        if (!context.Request.QueryString.HasValue || context.GetEndpoint() is not RouteEndpoint endpoint)
        {
            return next(context);
        }

        var known = Known.GetValue(endpoint, static e => OfQuery((RouteEndpoint)e));
        var errors = new Validation();
        var isUnknown = false;
        foreach (var (name, values) in context.Request.Query)
        {
            if (!known.Contains(name))
            {
                isUnknown = true;
                errors.Add(name, $"is not a known parameter; {(known.Count == 0 ? "none is" : $"known are: {string.Join(", ", known.Order(StringComparer.Ordinal))}")}");
            }
            else if (values.Count > 1)
            {
                errors.Add(name, "is given twice");
            }
        }

        return errors.Rejection is not { } rejection ? next(context)
            : Problems.For(isUnknown ? rejection with { Code = "unknown-parameter" } : rejection).ExecuteAsync(context);
    }

    /// <summary>The name of a bound parameter, in the URL or among the headers, where it is not the parameter's own.</summary>
    public static string NameOf(IParameterBindingMetadata parameter)
    {
        var attributes = parameter.ParameterInfo.GetCustomAttributes(inherit: true);
        return attributes.OfType<IFromQueryMetadata>().FirstOrDefault()?.Name
            ?? attributes.OfType<IFromHeaderMetadata>().FirstOrDefault()?.Name
            ?? attributes.OfType<IFromRouteMetadata>().FirstOrDefault()?.Name
            ?? System.Text.Json.JsonNamingPolicy.CamelCase.ConvertName(parameter.Name);
    }

    private static FrozenSet<string> OfQuery(RouteEndpoint endpoint) => endpoint.Metadata.GetOrderedMetadata<IParameterBindingMetadata>()
        .Where(p => IsOfQuery(p, endpoint.RoutePattern)).Select(NameOf).ToFrozenSet(StringComparer.Ordinal);

    // By the order in which the framework looks for a parameter's source.
    private static bool IsOfQuery(IParameterBindingMetadata parameter, RoutePattern route)
    {
        var attributes = parameter.ParameterInfo.GetCustomAttributes(inherit: true);
        return attributes.OfType<IFromQueryMetadata>().Any()
            || (!attributes.Any(a => a is IFromRouteMetadata or IFromHeaderMetadata or IFromBodyMetadata or IFromServiceMetadata)
                && (parameter.HasTryParse || parameter.ParameterInfo.ParameterType == typeof(string))
                && route.GetParameter(parameter.Name) is null);
    }
}
