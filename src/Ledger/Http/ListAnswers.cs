namespace Ledger.Http;

/// <summary>Answers lists: a page as JSON, or all of it, page by page, as NDJSON or CSV, by what the caller accepts.</summary>
public static class ListAnswers
{
    /// <summary>
    /// Reads a page from <paramref name="fetch"/>, which gets the key to begin after (null at first) and how many rows to read,
    /// and returns each row with its key. An export reads on from key to key, so no snapshot or connection is held meanwhile.
    /// </summary>
    public static async Task<IResult> Answer<TItem, TKey>(
        HttpContext http, PageQuery page, string kind, string?[] filter, Func<TKey?, int, Task<IReadOnlyList<(TItem Item, TKey Key)>>> fetch)
        where TKey : notnull
    {
        if (!Lists.TryRead<TKey>(page, kind, filter, out var list, out var rejection))
        {
            return Problems.For(rejection);
        }

        var rows = await fetch(list.After, list.Fetch);
        var asked = list.Page(rows, r => r.Key);
        return Results.Ok(new Page<TItem>([.. asked.Items.Select(r => r.Item)], asked.NextCursor));
    }
}
