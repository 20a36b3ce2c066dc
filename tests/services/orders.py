"""A service as one finds it: orders in a database, prices from another service. FastAPI, SQLAlchemy, httpx.

    uvicorn --factory orders:create_app
    DATABASE_URL, UPSTREAM_URL and QUERY_TIME (seconds that a query takes) are its settings.

GET /orders/{id}    typed `def`, session by a dependency: 15 connections, and 40 threads that wait for them
GET /prices/{sku}   `async def`, httpx with 10 connections
GET /reports/{id}   `async def` that queries without awaiting: one at a time
GET /health         nothing
"""

import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.middleware.gzip import GZipMiddleware
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str]
    quantity: Mapped[int]


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    sku: str
    quantity: int


class Price(BaseModel):
    sku: str
    price: float


# ---------------------------------------------------------------- the database


def make_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 30})

    @event.listens_for(engine, "connect")
    def add_slow_function(connection, _):
        connection.create_function("slow", 1, slow)

    return engine


def slow(seconds: float) -> int:
    """Stands for what a query on a real database waits for."""
    time.sleep(seconds)
    return 1


def fill(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as db:
        if not db.scalar(select(func.count()).select_from(Order)):
            db.add_all(Order(sku=f"sku-{i}", quantity=i % 7 + 1) for i in range(100))
            db.commit()


def find(db: Session, order_id: int) -> Order:
    query_time_s = float(os.environ.get("QUERY_TIME", "0.1"))
    order = db.scalar(select(Order).where(Order.id == order_id, func.slow(query_time_s) == 1))
    if order is None:
        raise HTTPException(404, "no such order")
    return order


# ---------------------------------------------------------------- dependencies


def get_db(request: Request) -> Iterator[Session]:
    with request.app.state.sessions() as db:
        yield db


async def get_client(request: Request) -> httpx.AsyncClient:
    client: httpx.AsyncClient = request.app.state.client
    return client


async def get_tenant(x_tenant: Annotated[str, Header()] = "public") -> str:
    if not x_tenant.isalnum():
        raise HTTPException(400, "bad tenant")
    return x_tenant


Database = Annotated[Session, Depends(get_db)]
Client = Annotated[httpx.AsyncClient, Depends(get_client)]

# ---------------------------------------------------------------- routes

router = APIRouter(dependencies=[Depends(get_tenant)])


@router.get("/orders/{order_id}")
def read_order(order_id: int, db: Database) -> OrderOut:
    return OrderOut.model_validate(find(db, order_id))


@router.get("/prices/{sku}")
async def read_price(sku: str, client: Client) -> Price:
    answer = await client.get(f"/prices/{sku}")
    answer.raise_for_status()
    return Price(sku=sku, price=answer.json()["price"])


@router.get("/reports/{order_id}")
async def report(order_id: int, request: Request) -> dict[str, int]:
    with request.app.state.sessions() as db:
        return {"quantity": find(db, order_id).quantity}


@router.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    default = f"sqlite:///{os.path.join(tempfile.gettempdir(), 'orders.db')}"
    engine = make_engine(os.environ.get("DATABASE_URL", default))
    fill(engine)
    app.state.sessions = sessionmaker(engine)
    upstream = os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9000")
    async with httpx.AsyncClient(base_url=upstream, limits=httpx.Limits(max_connections=10)) as app.state.client:
        yield
    engine.dispose()


def create_app() -> FastAPI:
    app = FastAPI(title="Orders", lifespan=lifespan)
    app.add_middleware(GZipMiddleware)
    app.include_router(router)
    return app
