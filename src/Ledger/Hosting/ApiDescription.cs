using System.Reflection;
using Ledger.Http;
using Microsoft.OpenApi;

namespace Ledger.Hosting;

/// <summary>The API described at /openapi/v1.json, browsable at /docs.</summary>
public static class ApiDescription
{
    private const string Scheme = "bearer";

    /// <summary>Registers the description.</summary>
    public static IServiceCollection AddApiDescription(this IServiceCollection services) => services.AddLedgerOpenApi(options =>
    {
        options.AddOperationTransformer((operation, context, _) =>
        {
            var needed = context.Description.ActionDescriptor.EndpointMetadata.OfType<Requirement>().Single();
            operation.Security = needed == Requirement.Nothing ? []
                : [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(Scheme, context.Document)] = [.. ScopeNames.Of(needed.Scopes)] }];
            if (needed.OfOperator)
            {
                operation.Description = $"For the operator: the scope `admin` in the tenant `{Requests.DefaultTenant}`.";
            }

            return Task.CompletedTask;
        });
        options.AddDocumentTransformer((document, _, _) =>
        {
            document.Info = new()
            {
                Title = "Ledger",
                Version = "1",
                Description = "Segments, memberships and usage as an event-sourced ledger. Every command answers with `Ledger-Position`, "
                    + "the position of its last event; a query given `Ledger-Min-Position` waits until its view has reached it.",
            };
            document.Servers = [];
            document.Components ??= new OpenApiComponents();
            document.Components.SecuritySchemes ??= new Dictionary<string, IOpenApiSecurityScheme>();
            document.Components.SecuritySchemes[Scheme] = new OpenApiSecurityScheme
            {
                Type = SecuritySchemeType.Http, Scheme = "bearer",
                Description = $"An API key or a JSON Web Token. What an operation lists are the scopes that the credential must have: {string.Join(", ", ScopeNames.All)}.",
            };
            return Task.CompletedTask;
        });
    });

    /// <summary>Maps both addresses.</summary>
    public static void MapApiDescription(this WebApplication app)
    {
        app.MapOpenApi().RequiresNothing().ExcludeFromDescription();
        app.UseSwaggerUI(ui =>
        {
            ui.RoutePrefix = "docs";
            ui.DocumentTitle = "Ledger";
            ui.SwaggerEndpoint("/openapi/v1.json", "Ledger 1");
        });
    }

    /// <summary>The program's version.</summary>
    internal static string Version { get; } =
        typeof(ApiDescription).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0];
}
