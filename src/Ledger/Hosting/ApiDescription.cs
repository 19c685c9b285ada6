using System.Reflection;
using Ledger.Http;

namespace Ledger.Hosting;

/// <summary>The API described at /openapi/v1.json, browsable at /docs.</summary>
public static class ApiDescription
{
    /// <summary>Registers the description.</summary>
    public static IServiceCollection AddApiDescription(this IServiceCollection services) => services.AddLedgerOpenApi(options =>
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
            return Task.CompletedTask;
        }));

    /// <summary>Maps both addresses.</summary>
    public static void MapApiDescription(this WebApplication app)
    {
        app.MapOpenApi().ExcludeFromDescription();
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
