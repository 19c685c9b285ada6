using Google.Protobuf;
using Ledger.EventStore;
using Ledger.Grpc;
using Ledger.Grpc.Rpc;
using Ledger.Http;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging.Abstractions;

namespace Ledger.Tests.Grpc;

public sealed class A_problem_over_grpc
{
    public static TheoryData<string> Codes => [.. Problems.All.Select(p => p.Code)];

    private static readonly HttpContext Http = new DefaultHttpContext { TraceIdentifier = "trace" };

    private static T? Detail<T>(GrpcStatus status) where T : class, IMessage<T>, new() =>
        Status.Parser.ParseFrom(status.Details).Details.FirstOrDefault(d => d.Is(new T().Descriptor))?.Unpack<T>();

    [Theory, MemberData(nameof(Codes))]
    public void has_a_status_its_code_as_the_reason_and_tells_when_to_try_again(string code)
    {
        var status = GrpcProblems.Of(new Rejection(code, "It is so."), Http);

        Assert.NotEqual(GrpcCode.Ok, status.Code);
        Assert.Equal("It is so.", status.Message);
        var info = Detail<ErrorInfo>(status)!;
        Assert.Equal((code, "ledger", "trace"), (info.Reason, info.Domain, info.Metadata["traceId"]));
        Assert.Equal(Problems.RetryAfterSecondsOf(code), (int?)Detail<RetryInfo>(status)?.RetryDelay.Seconds);
        Assert.Equal(Problems.StatusOf(code) is 429 or 503, Detail<RetryInfo>(status) is not null);
    }

    [Theory, MemberData(nameof(Codes))]
    public void has_a_status_that_fits_the_one_over_http(string code) => Assert.Contains(GrpcProblems.All[code], Problems.StatusOf(code) switch
    {
        400 or 406 or 415 => [GrpcCode.InvalidArgument],
        401 => [GrpcCode.Unauthenticated],
        403 => [GrpcCode.PermissionDenied],
        404 => [GrpcCode.NotFound],
        405 => [GrpcCode.Unimplemented],
        408 => [GrpcCode.DeadlineExceeded],
        409 => [GrpcCode.AlreadyExists, GrpcCode.FailedPrecondition, GrpcCode.Aborted],
        412 => [GrpcCode.Aborted],
        413 or 414 or 429 or 431 => [GrpcCode.ResourceExhausted],
        422 => [GrpcCode.AlreadyExists],
        500 => [GrpcCode.Internal],
        503 => [GrpcCode.Unavailable, GrpcCode.ResourceExhausted, GrpcCode.DeadlineExceeded],
        _ => Array.Empty<GrpcCode>(),
    });

    [Fact]
    public void has_no_status_unless_it_is_one() => Assert.Equal(Codes.Select(c => c.Data).Order(), GrpcProblems.All.Keys.Order());

    [Fact]
    public void names_fields_as_the_message_does()
    {
        var errors = new Validation();
        foreach (var field in (string[])["userId", "components[0].price", "quantities.inputToken", "tags.Team.B", "Idempotency-Key", "metadataTags.x"])
        {
            errors.Add(field, "is wrong");
        }

        Assert.Equal(
            ["user_id", "components[0].price", "quantities.inputToken", "tags.Team.B", "idempotency-key", "metadata_tags.x"],
            Detail<BadRequest>(GrpcProblems.Of(errors.Rejection!, Http))!.FieldViolations.Select(v => v.Field));
        Assert.Equal("call.user_id", Detail<BadRequest>(GrpcProblems.Of(Validation.Field("userId", "is wrong"), Http, "call"))!.FieldViolations[0].Field);
        Assert.Equal("calls[3].user_id", Detail<BadRequest>(GrpcProblems.Of(Validation.Field("[3].userId", "is wrong"), Http, "calls"))!.FieldViolations[0].Field);
        Assert.Equal("calls", Detail<BadRequest>(GrpcProblems.Of(Validation.Field("$", "is wrong"), Http, "calls"))!.FieldViolations[0].Field);
    }

    [Fact]
    public void leaves_out_what_would_not_go_through()
    {
        var errors = new Validation();
        errors.Add("description", new string('ä', 10_000));
        errors.Add("title", "is wrong");

        var status = GrpcProblems.Of(errors.Rejection!, Http);

        Assert.InRange(status.Details!.Length, 1, GrpcProblems.MaxDetailsBytes);
        Assert.Equal("title", Assert.Single(Detail<BadRequest>(status)!.FieldViolations).Field);
    }

    [Fact]
    public void tells_nothing_of_the_inside()
    {
        var problems = new GrpcProblems([e => e is AppendQueueFullException ? new Rejection("queue-full", "Full.") : null], NullLogger<GrpcProblems>.Instance);

        var ours = problems.Of(new InvalidOperationException("the secret is 42"), Http);

        Assert.Equal((GrpcCode.Internal, ProblemHandling.InternalDetail), (ours.Code, ours.Message));
        Assert.DoesNotContain("42", Status.Parser.ParseFrom(ours.Details).ToString(), StringComparison.Ordinal);
        Assert.Equal(GrpcCode.DeadlineExceeded, problems.Of(new TimeoutException("the secret is 42"), Http).Code);
        Assert.Equal(GrpcCode.ResourceExhausted, problems.Of(new AppendQueueFullException(1), Http).Code);
    }
}
