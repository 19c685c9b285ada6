using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Mvc.ModelBinding;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;

namespace Ledger.Http;

/// <summary>Describes in OpenAPI what <see cref="Json"/> reads and writes: to the framework a converter is a closed box.</summary>
public static class OpenApiSchemas
{
    /// <summary>Registers the document <c>v1</c> with these descriptions; <paramref name="more"/> says what else belongs in it.</summary>
    public static IServiceCollection AddLedgerOpenApi(this IServiceCollection services, Action<OpenApiOptions>? more = null) =>
        services.AddOpenApi("v1", options =>
        {
            options.CreateSchemaReferenceId = NameOf;
            options.AddSchemaTransformer((schema, context, _) =>
            {
                Describe(schema, context);
                return Task.CompletedTask;
            });
            more?.Invoke(options);
        });

    // A patch is described where it stands: it has no shape of its own. Types within others share names such as Body.
    private static string? NameOf(JsonTypeInfo type) =>
        IsPatch(type.Type) ? null
        : OpenApiOptions.CreateDefaultSchemaReferenceId(type) is { } name && type.Type.DeclaringType is { } outer ? outer.Name + name
        : OpenApiOptions.CreateDefaultSchemaReferenceId(type);

    private static void Describe(OpenApiSchema schema, OpenApiSchemaTransformerContext context)
    {
        if (context.ParameterDescription is { } parameter && parameter.Source != BindingSource.Body)
        {
            // Optional is not the same as null, which a URL cannot say.
            Describe(schema, parameter.ParameterDescriptor?.ParameterType is { } type && Plain(type) == typeof(QueryTime) ? typeof(QueryTime) : Plain(context.JsonTypeInfo.Type));
            schema.Type &= ~JsonSchemaType.Null;
            // A [Description] on a parameter of PageQuery is more than the framework can take.
            if (parameter.Name == "limit")
                (schema.Minimum, schema.Maximum, schema.Default) = ("1", $"{Lists.MaxLimit}", Lists.DefaultLimit);
            if (parameter.Name == "cursor") schema.Description = "The `nextCursor` of the page before; opaque.";
            return;
        }
        Describe(schema, context.JsonTypeInfo.Type);
        if (context.JsonPropertyInfo is { IsGetNullable: true } property && property.PropertyType == typeof(string)) schema.Type |= JsonSchemaType.Null;
        foreach (var patch in context.JsonTypeInfo.Properties.Where(p => IsPatch(p.PropertyType))) schema.Required?.Remove(patch.Name);
    }

    private static void Describe(OpenApiSchema schema, Type type)
    {
        if (IsPatch(type))
        {
            var value = type.GetGenericArguments()[0];
            schema.Description = null;
            Describe(schema, value);
            if (!value.IsValueType) schema.Type |= JsonSchemaType.Null;
            return;
        }
        var plain = Plain(type);
        if (plain == typeof(string)) schema.Type = JsonSchemaType.String;
        else if (plain == typeof(bool)) schema.Type = JsonSchemaType.Boolean;
        else if (plain == typeof(int)) (schema.Type, schema.Format) = (JsonSchemaType.Integer, "int32");
        else if (plain == typeof(long)) (schema.Type, schema.Format) = (JsonSchemaType.Integer, "int64");
        else if (plain == typeof(decimal)) Text(schema, "decimal", @"^-?\d+(\.\d+)?$");
        else if (plain == typeof(TimeSpan)) Text(schema, "duration", @"^P(\d+W)?(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$");
        else if (plain == typeof(DateTimeOffset) || plain == typeof(QueryTime)) Text(schema, "date-time", null);
        else if (plain.IsEnum) (schema.Type, schema.Enum) = (JsonSchemaType.String, [.. StrictEnumConverterFactory.NamesOf(plain).Select(n => (JsonNode)n.Name)]);
        else DescribeItems(schema, Json.Options.GetTypeInfo(plain));
        if (plain != type) schema.Type |= JsonSchemaType.Null;
    }

    private static void DescribeItems(OpenApiSchema schema, JsonTypeInfo type)
    {
        if (type.ElementType is not { } element || element == typeof(JsonElement)) return;
        if (type.Kind == JsonTypeInfoKind.Enumerable && schema.Items is (null or OpenApiSchema)) Describe((OpenApiSchema)(schema.Items ??= new OpenApiSchema()), element);
        if (type.Kind == JsonTypeInfoKind.Dictionary && schema.AdditionalProperties is (null or OpenApiSchema)) Describe((OpenApiSchema)(schema.AdditionalProperties ??= new OpenApiSchema()), element);
    }

    private static void Text(OpenApiSchema schema, string format, string? pattern) =>
        (schema.Type, schema.Format, schema.Pattern) = (JsonSchemaType.String, format, pattern);

    private static Type Plain(Type type) => Nullable.GetUnderlyingType(type) ?? type;

    private static bool IsPatch(Type type) => type.IsGenericType && type.GetGenericTypeDefinition() == typeof(Patch<>);
}
